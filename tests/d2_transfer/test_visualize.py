"""Drawing with Detectron2's Visualizer: objects are drawn where they are, nothing elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import ImageColor
from pycocotools import mask as coco_mask

from d2_transfer.visualize import class_colour, draw_detections, draw_record

GREY = np.full((80, 120, 3), 90, np.uint8)
BOX = (20, 10, 90, 60)
NAMES = ["cat", "dog"]


def changed(drawn, image=GREY):
    return np.abs(drawn.astype(int) - image).sum(axis=2) > 0


def box_mask():
    mask = np.zeros(GREY.shape[:2], bool)
    mask[10:60, 20:90] = True
    return mask


def test_a_mask_is_filled_and_a_box_is_outlined():
    filled = draw_detections(GREY, [BOX], [0], NAMES, masks=box_mask()[None])
    outlined = draw_detections(GREY, [BOX], [0], NAMES)
    for drawn in (filled, outlined):
        assert drawn.shape == GREY.shape and drawn.dtype == np.uint8
        assert not changed(drawn)[:5].any() and not changed(drawn)[:, :10].any()
        assert changed(drawn)[9:12, 40:90].any(axis=0).all(), "the upper edge"
    assert changed(filled)[12:58, 22:88].all()
    assert not changed(outlined)[40:55, 40:85].any()


def test_a_class_has_its_colour_and_a_score_is_written():
    tones = []
    for index in (0, 1):
        drawn = draw_detections(GREY, [BOX], [index], NAMES, masks=box_mask()[None])
        tones.append(drawn[50, 80])
        expected = (np.array(ImageColor.getrgb(class_colour(index))) + 90) / 2
        assert np.abs(tones[-1] - expected).max() <= 2, "half the colour, half the image"
    assert np.abs(tones[0].astype(int) - tones[1]).max() > 40
    plain = draw_detections(GREY, [BOX], [0], NAMES)
    assert changed(draw_detections(GREY, [BOX], [0], NAMES, scores=[0.87]), plain).any()
    assert np.array_equal(draw_detections(GREY, [BOX], [0], NAMES), plain), "nothing is random"


def test_colours_differ_for_many_classes():
    assert len({class_colour(index) for index in range(80)}) >= 70
    assert len({class_colour(index) for index in range(20)}) == 20
    assert all(len(ImageColor.getrgb(class_colour(index))) == 3 for index in range(500))


@pytest.mark.parametrize(
    "box", [(0, 30, 30, 60), (90, 30, 130, 60), (-5, -5, 20, 10), (50, 75, 80, 80)]
)
def test_a_label_stays_within_the_image(box):
    """All of it is seen: as many white pixels as in the middle of the image."""
    middle, moved = (draw_detections(GREY, [b], [0], ["name"]) for b in [(50, 30, 80, 60), box])
    assert abs((moved.min(axis=2) > 150).sum() - (middle.min(axis=2) > 150).sum()) <= 3


def test_nothing_found_is_the_image_itself():
    drawn = draw_detections(
        GREY, np.zeros((0, 4)), [], NAMES, scores=[], masks=np.zeros((0, 80, 120))
    )
    assert np.array_equal(drawn, GREY)
    assert np.array_equal(draw_record(GREY, {"annotations": []}, NAMES), GREY)
    assert np.array_equal(draw_record(GREY, {}, NAMES), GREY)


def test_a_larger_drawing_has_the_objects_at_the_same_places():
    drawn = draw_detections(GREY, [BOX], [0], NAMES, masks=box_mask()[None], scale=2)
    assert drawn.shape == (160, 240, 3)
    assert changed(drawn, 90)[24:116, 44:176].all() and not changed(drawn, 90)[:15].any()


def test_a_record_is_drawn_with_boxes_polygons_and_rle():
    rle = coco_mask.encode(np.asfortranarray(box_mask(), dtype=np.uint8))
    polygon = [[20, 10, 90, 10, 90, 60, 20, 60]]
    base = {"bbox": [20, 10, 70, 50], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    outlined = draw_record(GREY, {"annotations": [base]}, NAMES)
    assert np.array_equal(outlined, draw_detections(GREY, [BOX], [1], NAMES))
    for segmentation in (rle, polygon):
        drawn = draw_record(GREY, {"annotations": [{**base, "segmentation": segmentation}]}, NAMES)
        assert changed(drawn)[12:58, 22:88].all() and not changed(drawn)[:5].any()
    crowd = draw_record(GREY, {"annotations": [{**base, "iscrowd": 1}]}, NAMES)
    assert changed(crowd, outlined).any(), "a crowd is named as one"


def test_one_record_may_mix_annotations_with_and_without_masks():
    base = {"bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    small = {**base, "bbox": [100, 5, 115, 20], "segmentation": [[100, 5, 115, 5, 115, 20]]}
    drawn = draw_record(GREY, {"annotations": [{**base, "bbox": BOX}, small]}, NAMES)
    assert changed(drawn)[7:10, 105:113].all() and not changed(drawn)[40:55, 40:85].any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GREY[..., 0], r"an image must be \(H, W, 3\) uint8, not \(80, 120\) uint8"),
        (GREY / 255, r"not \(80, 120, 3\) float64"),
    ],
)
def test_another_form_of_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(image, [BOX], [0], NAMES)


def test_objects_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="class 2 has no name: there are 2 names, from 0"):
        draw_detections(GREY, [BOX], [2], NAMES)
    with pytest.raises(ValueError, match="of as many objects, not 1 boxes, 2 classes"):
        draw_detections(GREY, [BOX], [0, 1], NAMES)
    with pytest.raises(ValueError, match="not 1 boxes, 1 classes, 2 masks"):
        draw_detections(GREY, [BOX], [0], NAMES, masks=np.stack([box_mask()] * 2))
    with pytest.raises(ValueError, match=r"masks of \(4, 4\) for an image of \(80, 120\)"):
        draw_detections(GREY, [BOX], [0], NAMES, masks=np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="not 1 boxes, 1 classes, 2 scores"):
        draw_detections(GREY, [BOX], [0], NAMES, scores=[0.1, 0.2])


def test_without_opencv_one_line_says_what_to_install(run_tool):
    code = (
        "import argparse, sys; sys.modules['cv2'] = None\n"
        "import numpy as np\nfrom cwrgp.cli import run_main\n"
        "from d2_transfer.visualize import draw_detections\n"
        "draw = lambda args: draw_detections(np.zeros((8, 8, 3), np.uint8), [], [], [])\n"
        "sys.exit(run_main(draw, argparse.Namespace(debug=False)))\n"
    )
    done = run_tool("-c", code)
    assert done.returncode == 2
    assert done.stderr == "error: drawing needs OpenCV: pip install 'cwrgp[visualize]'\n"
