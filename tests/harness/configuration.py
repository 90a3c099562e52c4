"""Configurations with places for what only a run knows: @NAME@."""

import re


def filled(text, **values):
    return re.sub(r"@([A-Z_]+)@", lambda place: str(values[place[1]]), text)
