/* What an i386 program without large file support asks of files: numbers that do not fit into 32 bits are EOVERFLOW.
 *
 * usage: old32 PATH...   prints each call that fails, and for each directory how many names it has.
 *
 * It makes the system calls itself, so neither headers nor libraries for i386 are needed. Numbers and structures are
 * those of arch/x86/entry/syscalls/syscall_32.tbl and include/linux/compat.h; that a READDIR cookie has to fit into a
 * signed long is what readdir(3) and telldir(3) of the C library add.
 */

enum { EXIT = 1, WRITE = 4, OPEN = 5, CLOSE = 6, LSEEK = 19, STAT = 106, LSTAT = 107, FSTAT = 108, GETDENTS = 141,
       GETDENTS64 = 220 };
enum { NONBLOCK = 04000, NOFOLLOW = 0400000, ENOTDIR = 20, ELOOP = 40, EOVERFLOW = 75 };

static char buffer[32768];
static int failures;

static int call(int number, int a, int b, int c)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

static void say(const char *text)
{
    int length = 0;
    while (text[length])
        length++;
    call(WRITE, 1, (int)text, length);
}

static void number(int value)
{
    char digits[12], *at = digits + 11;
    *at = 0;
    do
        *--at = '0' + value % 10;
    while (value /= 10);
    say(at);
}

static void failed(const char *path, const char *what, int result)
{
    failures++;
    say(path);
    say(": ");
    say(what);
    say(": errno ");
    number(-result);
    say("\n");
}

static int tried(const char *path, const char *what, int result)
{
    if (result < 0)
        failed(path, what, result);
    return result;
}

static int is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* All entries with one of the two calls; each has d_ino, d_off, d_reclen, of 4 or 8 bytes the former. */
static int listed(const char *path, int fd, int getdents, int width)
{
    int count = 0, got;
    tried(path, "rewind", call(LSEEK, fd, 0, 0));
    while ((got = tried(path, getdents == GETDENTS ? "getdents" : "getdents64",
                        call(getdents, fd, (int)buffer, sizeof buffer))) > 0) {
        char *at = buffer;
        int last = 0;
        while (at < buffer + got) {
            unsigned int *words = (unsigned int *)at;
            if (width == 8 && (words[1] || words[3] || words[2] >> 31))
                failed(path, "d_ino or d_off of more than 32 bits", -EOVERFLOW);
            last = words[width / 4];
            char *name = at + 2 * width + (width == 4 ? 2 : 3);
            count += !is_dots(name);
            at += *(unsigned short *)(at + 2 * width);
        }
        if (tried(path, "seekdir", call(LSEEK, fd, last, 0)) != last || count > 99999)
            return -1; /* a cookie that was cut leads back to another place: it would go on for ever */
    }
    return count;
}

static void look(const char *path)
{
    int fd, names;
    tried(path, "lstat", call(LSTAT, (int)path, (int)buffer, 0));
    fd = call(OPEN, (int)path, NONBLOCK | NOFOLLOW, 0);
    if (fd == -ELOOP)
        return;
    if (tried(path, "open", fd) < 0)
        return;
    tried(path, "stat", call(STAT, (int)path, (int)buffer, 0));
    tried(path, "fstat", call(FSTAT, fd, (int)buffer, 0));
    if (call(GETDENTS, fd, (int)buffer, sizeof buffer) != -ENOTDIR) {
        names = listed(path, fd, GETDENTS, 4);
        if (names != listed(path, fd, GETDENTS64, 8))
            failed(path, "getdents and getdents64 differ", 0);
        say(path);
        say(" ");
        number(names);
        say("\n");
    }
    call(CLOSE, fd, 0, 0);
}

__attribute__((used)) void begin(int *stack)
{
    int count = stack[0];
    for (int at = 1; at < count; at++)
        look((const char *)stack[1 + at]);
    call(EXIT, failures != 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %esp, %eax\n push %eax\n call begin\n");
