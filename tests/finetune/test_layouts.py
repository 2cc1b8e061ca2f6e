"""What people have in a folder: which images it holds, or how to bring it into form."""

import os
import re
import socket

import pytest

from optax_dtnh.finetune.dataset import open_data, open_test
from optax_dtnh.finetune.errors import UsageError
from tests.finetune.pictures import found, refused, write

FLAT, SPLIT = "{ant,cat}/{0,1,2}.png", "{train,test}/{ant,cat}/{0,1}.png"


def opened(root, **options):
    return open_data(str(root), **{"train_per_class": 1, "seed": 0} | options)


# --- what is recognized: what is written, and what is found with one training image of each class

KNOWN = {
    "class folders": ([FLAT], "ant cat 2+4"),
    "synsets": (["n0144{3537,8}/n01_{1,2}.jpeg"], "n01443537 n01448 2+2"),
    "lfw": (["Ann_Lee/Ann_Lee_000{1,2}.jpg", "Bo_X/Bo_X_000{1,2}.jpg"], "Ann_Lee Bo_X 2+2"),
    "splits": ([SPLIT], "ant cat 2+4"),
    "roboflow folders": (["{train,valid,test}/{ant,cat}/{a,b}.rf.jpg", "README.roboflow.txt"],
                         "ant cat 2+4+4, .txt 1"),
    "a validation split alone": (["{train,val}/{ant,cat}/{0,1}.png"], "ant cat 2+4"),
    "train alone": (["train/{ant,cat}/{0,1,2}.png"], "ant cat 2+4"),
    "an unlabeled test": (["train/{ant,cat}/{0,1,2}.png", "test/{1,2,3,4}.png", "sample.csv"],
                          "ant cat 2+4, .csv 1, test/ 4 images"),
    "tiny imagenet": (["train/n{1,2}/{images/1.png,images/2.png,b.txt}", "{val,test}/images/1.png"],
                      "n1 n2 2+2, .txt 2, test/images/ 1 image, val/images/ 1 image"),
    "loose in train": ([SPLIT, "train/montage.png"], "ant cat 2+4, train/ 1 image"),
    "many loose": ([FLAT, "{1,2,3,4}.png"], "ant cat 2+4, ./ 4 images"),
    "beside the splits": ([SPLIT, "raw/{1,2}.png"], "ant cat 2+4, raw/ 2 images"),
    "images by content": (["{ant,cat}/{0.avif,1.ppm,2.jfif,3.jp2,4,5.none}", "ant/{a,b}.heic"],
                          "ant cat 2+10, .heic 2"),
    "of systems": (
        [FLAT, "{ant,cat,.}/@eaDir/0.png/SYNO.jpg", "{.thumbnails,__MACOSX,#recycle}/ant/0.png",
         "ant/{.DS_Store,._0.png,Thumbs.db,desktop.ini}", "cat/.ipynb_checkpoints/0.png",
        "{@tmp,~snapshot,found.000,Temporary Items}/x/1.png"],
        "ant cat 2+4, @eaDir 3, hidden 2, #recycle 1, .thumbnails 1, @tmp 1, Temporary Items 1, "
        "__MACOSX 1, found.000 1, ~snapshot 1, Thumbs.db 1, desktop.ini 1, .ipynb_checkpoints 1",
    ),
    "marks alone": (["{#1,@home,$100,~}/{0,1}.png"], "#1 $100 @home ~ 4+4"),
    "folders in classes": (["{ant,cat}/{0.png,x/1.png,x/y/2.png}"], "ant cat 2+4"),
    "splits in splits": (["train/train/{ant,cat}/{0,1}.png", "test/test/{ant,cat}/0.png"],
                         "ant cat 2+2"),
    "no splits": (["{train station,test tube,dev board,trainer,bullet train}/{0,1}.png"],
                  "bullet train dev board test tube train station trainer 5+5"),
}  # fmt: skip
SPLITS = "train/test TRAIN/VAL Train/Test training/validation trn/eval train/dev training/testing "
SPLITS += "training_set/test_set train2017/val2017 X_train/X_test seg_train/seg_test TrainA/TestA "
SPLITS += "Training-Data/ValidationData ILSVRC2012_img_train/ILSVRC2012_img_val train(1)/testset"
KNOWN |= {s: ([f"{{{s.replace('/', ',')}}}/{{a,b}}/0.png"], "a b 2+2") for s in SPLITS.split()}


@pytest.mark.parametrize("case", KNOWN)
def test_a_layout_is_recognized(tmp_path, case):
    patterns, expected = KNOWN[case]
    assert found(opened(write(tmp_path, *patterns))) == expected


def test_classes_are_chosen_by_name_alone(tmp_path):
    write(tmp_path, "{bus,car,train}/{0,1}.png")
    refused(r"got '.*/train', which is named like a split.*`--classes bus car train`", tmp_path)
    assert found(opened(tmp_path, classes=("bus", "car", "train"))) == "bus car train 3+3"
    assert found(opened(tmp_path, classes=("train", "bus"))) == "bus train 2+2, car/ 2 images"
    write(tmp_path / "splits", SPLIT, "{train,test}/bee/0.png")
    chosen = opened(tmp_path / "splits", classes=("cat", "ant"))
    assert found(chosen) == "ant cat 2+4, test/bee/ 1 image, train/bee/ 1 image"
    unknown = r"^`--classes` should be names .* got 'ant,cat'\. .* by spaces\."
    refused(unknown, tmp_path / "splits", classes=("ant,cat", "bee"))
    refused(r"got 1 in .*, or choose more", tmp_path / "splits", classes=("ant",))
    write(tmp_path / "few", "train/{ant,bee,cat}/{0,1}.png", "test/cat/0.png")
    refused(r"names .*/few/test', got 'ant', 'bee'", tmp_path / "few", classes=("ant", "bee"))
    write(tmp_path / "again", "{train,test}/{bus,train}/{0,1}.png")
    refused(r"`--classes bus train`", tmp_path / "again")
    assert found(opened(tmp_path / "again", classes=("bus", "train"))) == "bus train 2+4"
    assert len(to_test(tmp_path / "splits", classes=("ant",)).images) == 2


NOTES = {
    "No test image is of 'cat'.": ["train/{ant,cat}/{0,1}.png", "test/ant/0.png"],
    "Of all images, 2 are in folders inside class folders.": [FLAT, "cat/x/{1,2}.png"],
    r"The classes 'cafe\u0301' and 'caf\xe9' differ": ["{caf\u00e9,cafe\u0301,tea}/{0,1}.png"],
    "The classes 'A-B' and 'a b' and 'a_b' differ by case": ["{a b,a_b,A-B}/{0,1}.png"],
}


@pytest.mark.parametrize("note", NOTES)
def test_what_may_be_meant_otherwise_is_said(tmp_path, note):
    (said,) = opened(write(tmp_path, *NOTES[note])).notes
    assert said.startswith(note)


# --- what is not: what is written, and the sentence about it

UNFIT = {
    "nothing": ([], r"images for each class, got none in"),
    "loose images": (["{1,2}.png"], r"Move the images .* in a table for `--labels` \(docs/your"),
    "unpacked": (["{train,test}/{cat,dog}.0.jpg"], r"'.*/test'.* named like a split"),
    "a wrapper": ([f"dataset/{SPLIT}"], r"folders alone in '.*dataset'.*Give an inner folder"),
    "a level too deep": (["{ant,cat}/images/{1,2}.png"], r"folders alone in '.*ant'"),
    "images and masks": (["{images,masks}/{1,2}.png"], r"'.*/images', .* `--classes images masks`"),
    "an empty class": ([FLAT, "bee/notes.txt"], r"got none in '.*bee' \(of 1 such folders\)\. Con"),
    "one class": (["ant/{1,2}.png"], r"at least 2 classes, got 1 in '.*' \(ant\)\. Give the f"),
    "a test split alone": (["test/{ant,cat}/1.png"], r"named like a split or a"),
    "images in long splits": (["{train_images,test_images}/1.png"], r"'.*/test_images', .* split"),
    "splits of no name": (["{one,two}/{ant,cat}/1.png"], r"or name the folders of splits `train` "),
    "no training split": (["{val,test}/ant/1.png"], r"Give an inner folder, or name the [^-]+$"),
    "masks in a class": ([FLAT, "cat/masks/1.png"], r"inside one in '.*/cat/masks' \(of 1 such f"),
    "splits in classes": (["{ant,cat}/{train,test}/1.png"], r"ant/test' .* splits are around"),
    "thumbs": ([FLAT, "__thumbs__/1.png"], r"'.*/__thumbs__', which is named like"),
    "unreadable": ([FLAT, "bee/1.HEIC"], r"got none in '.*/bee'"),
    "splits of two spellings": (["{train,Train,test}/{ant,cat}/1.png"], r"'.*/Train' and '.*/trai"),
    "two validations": (["{train,val,valid}/{ant,cat}/1.png"], r"'.*/val' and '.*/valid'\. Merge"),
    "a class of the test alone": ([SPLIT, "test/yak/1.png"], r"to train on, got none of 'yak' in"),
    "case": (["train/{Ant,Cat}/1.png", "test/{ant,Cat}/1.png"], r"tells 'Ant' and 'ant' apart"),
    "normalization": (["train/{caf\u00e9,tea}/1.png", "test/{cafe\u0301,tea}/1.png"],
                      r"alone tells 'cafe\\u0301' and 'caf\\xe9' apart"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_a_layout_that_is_not_recognized_is_answered_by_what_to_do(tmp_path, monkeypatch, case):
    patterns, match = UNFIT[case]
    monkeypatch.delattr("optax_dtnh.finetune.dataset.check_images")
    refused(match, write(tmp_path, *patterns))


PATHS = {
    "": "got '', which does not exist", "x" * 5000: "File name too long", "a\0b": "null",
    "x.png/y": "Not a directory", "deep": "maximum recursion depth",
    "x.png": "got the file 'x.*unpacked",
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:9])
def test_a_path_that_cannot_be_opened(tmp_path, monkeypatch, path):
    monkeypatch.chdir(write(tmp_path, "x.png", "deep/" + "a/" * 600 + "1.png"))
    refused(PATHS[path], path)


ODD = ["a\nb", "caf\udce9", "9.41\u202fAM", "100%s{0}{x!r}\\u\\1"]
ODD += ["~", "-n", "x" * 250, " ", "'\"", "🐜"]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_odd_names_of_classes_and_files_change_nothing(tmp_path, name):
    root = write(tmp_path, "{train,test}/ant/0.png", "train/cat/0.png", "loose.png")
    (root / "loose.png").rename(root / f"{name[:200]}.png")
    for split in (root / "train", root / "test"):
        (split / "ant" / "0.png").rename(split / "ant" / f"{name[:200]}.png")
        (split / "ant").rename(split / name)
    data = opened(root)
    assert data.classes == tuple(sorted([name, "cat"]))
    assert "\n" not in "".join(data.left_out)


def test_what_is_no_file_is_never_opened(tmp_path):
    write(tmp_path, FLAT)
    os.mkfifo(tmp_path / "ant" / "x.jpg")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tmp_path / "cat" / "y.png"))
    assert found(opened(tmp_path)) == "ant cat 2+4, .jpg 1, .png 1"


# --- evaluation asks for less

TESTED = {
    "class folders": ([FLAT], 6, "ant cat"),
    "one class": (["cat/{1,2}.png"], 2, "cat"),
    "a test split alone": (["test/cat/1.png"], 1, "cat"),
    "both": ([SPLIT], 4, "ant cat"),
    "a class called so": (["{cat,test}/1.png"], 2, "cat test"),
    "validation and test": (["{val,test}/{ant,cat}/1.png"], 2, "ant cat"),
}


def to_test(root, **options):
    options = {"train_per_class": 1, "seed": 0} | options
    return open_test(str(root), "", known=("ant", "cat", "test"), **options)


@pytest.mark.parametrize("case", TESTED)
def test_a_folder_to_evaluate_on_may_have_less(tmp_path, case):
    patterns, count, present = TESTED[case]
    images = to_test(write(tmp_path, *patterns)).images
    assert (len(images), {image.label for image in images.images}) == (count, {*present.split()})


UNTESTED = {
    "named like a split": ["{train,valid}/1.png"],
    "can be read": ["ant/0.png", "cat/broken.png"],
    "each class, got none": ["{1,2}.png"],
    "images to test on, got none in": ["train/ant/1.png", "test/ant/broken.png"],
}


@pytest.mark.parametrize("match", UNTESTED)
def test_an_error_of_evaluation_names_no_option_of_training(tmp_path, match):
    write(tmp_path, *UNTESTED[match])
    for broken in tmp_path.rglob("broken.png"):
        broken.write_bytes(b"")
    with pytest.raises(UsageError, match=match) as raised:
        to_test(tmp_path, skip_broken=match.startswith("images to test on"))
    options = set(re.findall(r"`(--[a-z-]+)", str(raised.value)))
    assert options <= {"--data", "--labels", "--data-dir", "--classes"}
