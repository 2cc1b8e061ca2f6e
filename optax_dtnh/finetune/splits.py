"""The names of folders that are no classes: splits, and kinds of files."""

TRAIN, TEST, VALIDATION = "train", "test", "validation"
SPELLINGS = {
    TRAIN: ("train", "training", "trn"),
    TEST: ("test", "testing"),
    VALIDATION: ("val", "valid", "validation", "dev", "eval"),
}
# Beside each other in data for detection and segmentation, where none of them is a class.
KINDS = frozenset({"images", "image", "imgs", "img", "masks", "mask", "labels", "annotations"})
_SPLITS = {spelling: split for split, names in SPELLINGS.items() for spelling in names}


def split_named(name: str) -> str | None:
    """Return TRAIN, TEST or VALIDATION for one of its usual names in any case, else None."""
    return _SPLITS.get(name.casefold())


def is_no_class(name: str) -> bool:
    """Return whether a folder of this name is rarely a class."""
    return split_named(name) is not None or name.casefold() in KINDS
