"""The names of folders that are no classes: splits, and kinds of files."""

import re

TRAIN, TEST, VALIDATION = "train", "test", "validation"
SPELLINGS = {
    TRAIN: ("train", "training", "trn", "trainval"),
    TEST: ("test", "testing"),
    VALIDATION: ("val", "valid", "validation", "dev", "eval"),
}
# What may stand around them: `test_set`, `X_train`, `trainA`, `val2017`, but no `test tube`.
FILLERS = r"(?:[\W\d_]|[xy][\W_]|sets?|data|images?|imgs?|photos?|pictures?|files?|splits?|folders?"
FILLERS += r"|seg|ilsvrc|imagenet|(?-i:(?<=[a-z])[AB]))*"
# Beside each other in data for detection and segmentation, where none of them is a class.
IMAGES = frozenset({"images", "image", "imgs", "img"})
KINDS = IMAGES | {"masks", "mask", "labels", "annotations", "thumbs", "thumb", "thumbnails"}
_SPLITS = {spelling: split for split, names in SPELLINGS.items() for spelling in names}
_NAME = re.compile(f"{FILLERS}({'|'.join(_SPLITS)}){FILLERS}", re.IGNORECASE)


def split_named(name: str) -> str | None:
    """Return TRAIN, TEST or VALIDATION for one of its usual names in any case, else None."""
    found = _NAME.fullmatch(name)
    return _SPLITS[found[1].lower()] if found else None


def is_no_class(name: str) -> bool:
    """Return whether a folder of this name is rarely a class."""
    return split_named(name) is not None or name.casefold().strip("_") in KINDS
