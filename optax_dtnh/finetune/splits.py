"""The names that people give to the splits of their data."""

TRAIN, TEST, VALIDATION = "train", "test", "validation"
SPELLINGS = {
    TRAIN: ("train", "training", "trn"),
    TEST: ("test", "testing"),
    VALIDATION: ("val", "valid", "validation", "dev", "eval"),
}
_SPLITS = {spelling: split for split, names in SPELLINGS.items() for spelling in names}


def split_named(name: str) -> str | None:
    """Return TRAIN, TEST or VALIDATION for one of its usual names in any case, else None."""
    return _SPLITS.get(name.casefold())
