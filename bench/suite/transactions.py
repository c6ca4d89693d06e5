"""Small transactions, then one large one: transactions.py DATABASE SMALL ROWS."""

import sqlite3
import sys

small, rows = map(int, sys.argv[2:])
database = sqlite3.connect(sys.argv[1])
database.execute("CREATE TABLE item (number INTEGER, text TEXT)")
for number in range(small):
    database.execute("INSERT INTO item VALUES (?, ?)", (number, "x" * 100))
    database.commit()
database.executemany("INSERT INTO item VALUES (?, ?)", ((number, "y" * 50) for number in range(rows)))
database.commit()
found = database.execute("SELECT count(*) FROM item").fetchone()[0]
database.close()
if found != small + rows:
    sys.exit(f"{found} rows, not {small + rows}")
