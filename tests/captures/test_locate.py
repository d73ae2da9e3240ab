"""Which file a listed path means, and which masks lie beside images."""

import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.locate import IMAGE_FOLDERS, MASK_FOLDERS, locate, masks_beside, was_mended


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root, listed, usual=IMAGE_FOLDERS):
    """The file that is found for one listed path, seen from the folder. None: there is none."""
    file = locate([root / listed], root, usual).get(root / listed)
    return None if file is None else str(file.relative_to(root))


@pytest.mark.parametrize(
    "listed",
    [
        "images/000.png",
        "./images/000.png",
        "images/../images/000.png",
        "images/000",
        "images/000.PNG",
        "IMAGES/000.png",
        "images/000.jpg",
        "images\\000.png",
        ".\\images\\000.png",
        "C:\\captures\\ball\\images\\000.png",
        "\\\\server\\share\\images\\000.png",
        "/home/someone/ball/images/000.png",
        "/home/someone/ball/Images/000.JPG",
        "/home/someone/photos/000.png",
        "file:///home/someone/ball/images/000.png",
        "000.png",
        "rgb/000.png",
    ],
)
def test_a_path_of_another_machine_or_program_means_the_image(tmp_path, listed):
    touch(tmp_path, "images/000.png", "images/001.png", "masks/000.png", "images_old/001.png")
    assert found(tmp_path, listed) == "images/000.png"


@pytest.mark.parametrize("listed", ["a photo.png", "a%20photo.png", "images/a%20photo"])
def test_escapes_are_resolved(tmp_path, listed):
    touch(tmp_path, "images/a photo.png")
    assert found(tmp_path, listed) == "images/a photo.png"


@pytest.mark.parametrize("listed", ["images/a%20photo.png", "images\\a%20photo.png"])
def test_a_name_that_has_an_escape_of_its_own_stays(tmp_path, listed):
    touch(tmp_path, "images/a%20photo.png", "images/a photo.png")
    assert found(tmp_path, listed) == "images/a%20photo.png"


def test_a_dot_in_a_name_is_no_suffix(tmp_path):
    touch(tmp_path, "images/frame.0001.png", "images/frame.0002.png")
    assert found(tmp_path, "images/frame.0002") == "images/frame.0002.png"


def test_of_two_suffixes_the_listed_one_wins_and_then_png(tmp_path):
    touch(tmp_path, "images/000.jpg", "images/000.png")
    assert found(tmp_path, "images/000.JPG") == "images/000.jpg"
    assert found(tmp_path, "images/000.tif") == "images/000.png"


@pytest.mark.parametrize("listed", ["images/007.png", "images/007", "val/r_0", "/home/someone/scene/val/r_0.png"])
def test_an_absent_image_is_not_replaced_by_another_of_its_name(tmp_path, listed):
    """The folder exists, and the image is not in it; or only the folders of other splits have its name."""
    touch(tmp_path, "images/000.png", "images_8/007.png", "train/r_0.png", "test/r_0.png")
    assert found(tmp_path, listed) is None


def test_no_file_is_taken_twice(tmp_path):
    touch(tmp_path, "images/000.png")
    listed = [tmp_path / "images/000.png", tmp_path / "elsewhere/000.png"]
    assert locate(listed, tmp_path) == {listed[0]: listed[0]}


def test_the_longest_common_end_of_the_path_wins(tmp_path):
    touch(tmp_path, "left/images/0.png", "right/images/0.png")
    assert found(tmp_path, "/home/someone/right/images/0.png") == "right/images/0.png"


def test_two_files_that_fit_equally_well_are_refused(tmp_path):
    touch(tmp_path, "left/images/0.png", "right/images/0.png")
    with pytest.raises(
        CaptureError, match=r"0.png is listed, and both .*left/images/0.png and .*right/images/0.png fit"
    ):
        found(tmp_path, "/home/someone/images/0.png")


def test_only_paths_that_differ_by_more_than_a_suffix_are_mended(tmp_path):
    file = tmp_path / "images/0.png"
    assert not was_mended(file, file)
    assert not was_mended(tmp_path / "images/0", file)
    assert was_mended(tmp_path / "images/0.jpg", file)
    assert was_mended(tmp_path / "images\\0.png", file)


def test_masks_are_looked_for_in_their_own_folders(tmp_path):
    touch(tmp_path, "images/0.jpg", "masks/0.png", "depth/0.png")
    assert found(tmp_path, "C:\\ball\\masks\\0.png", MASK_FOLDERS) == "masks/0.png"


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/0.jpg", "masks/0.png"),
        ("images/0.jpg", "masks/0.jpg"),
        ("images/0.jpg", "mask/0.jpg.png"),
        ("images/0.jpg", "images/0.mask.png"),
        ("images/0.jpg", "images/0_mask.png"),
        ("images/0.png", "images/0.png.png"),
        ("images/left/0.jpg", "masks/left/0.png"),
        ("images/left/0.jpg", "images/left/masks/0.png"),
        ("0.jpg", "masks/0.png"),
        ("train/images/0.jpg", "train/masks/0.png"),
    ],
)
def test_masks_beside_images_are_found(tmp_path, image, mask):
    touch(tmp_path, image, mask)
    assert masks_beside([tmp_path / image], tmp_path) == {tmp_path / image: tmp_path / mask}


def test_other_files_are_no_masks(tmp_path):
    touch(tmp_path, "images/0.png", "masks/1.png", "depth/0.png", "images/0.jpg.txt")
    assert masks_beside([tmp_path / "images/0.png"], tmp_path) == {}
