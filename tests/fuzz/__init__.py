"""Parsers of what strangers wrote, fed with anything: `targets` says what must hold, script/fuzz searches for more."""
