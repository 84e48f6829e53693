"""Tiny synthetic data sets with masks and boxes, written as the data sets read them."""

import json

import numpy as np
from PIL import Image

PAINT = np.array([[40, 90, 140], [220, 30, 60], [10, 200, 90]], dtype=np.uint8)
"""The colour in which ``write_mask_folder`` paints each class, so that an image tells its mask."""


def write_mask_folder(root, parts, *, images="images", masks="masks"):
    """Writes images and masks of differing sizes: ``parts`` maps a folder to their number."""
    generator = np.random.default_rng(0)
    for part, count in parts.items():
        for folder in (images, masks):
            (root / part / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            height, width = (int(side) for side in generator.integers(30, 60, 2))
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[height // 4 : height // 2, 3 : width // 2] = 1
            mask[height // 2 :, width // 3 :] = 2
            Image.fromarray(PAINT[mask]).save(root / part / images / f"{number:03}.png")
            Image.fromarray(mask).save(root / part / masks / f"{number:03}.png")
    return root


def write_pair(root, image, mask, values, *, height=24, width=32):
    """Writes an image of noise and a mask with a palette, of random values that depend on its name alone."""
    generator = np.random.default_rng(list(mask.encode()))
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    indices = generator.choice(np.asarray(values, dtype=np.uint8), (height, width))
    for path in (root / image, root / mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / image)
    written = Image.fromarray(indices, mode="P")
    written.putpalette(generator.integers(0, 256, 768, dtype=np.uint8).tobytes())
    written.save(root / mask)


def write_voc_masks(root, lists, prefix="VOCdevkit/VOC2012/", *, folder="SegmentationClass"):
    """Writes VOC's segmentation: ``lists`` maps a list to its number of images."""
    for name, count in lists.items():
        names = [f"{name}_{number:03}" for number in range(count)]
        path = root / prefix / "ImageSets" / "Segmentation" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{each}\n" for each in names))
        for each in names:
            write_pair(root, f"{prefix}JPEGImages/{each}.jpg", f"{prefix}{folder}/{each}.png", [*range(21), 255])
    return root


def write_cityscapes(root, parts, *, masks="labelIds", values=range(34)):
    """Writes Cityscapes' folders: ``parts`` maps a part to its images a city."""
    for part, count in parts.items():
        for city in ("ulm", "bonn"):
            for number in range(count):
                name = f"{part}/{city}/{city}_{number:06}_000019"
                write_pair(root, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_{masks}.png", values)
    return root


def write_ade20k(root, parts, prefix="ADEChallengeData2016/"):
    """Writes ADE20K's folders: ``parts`` maps a part to its number of images."""
    for part, count in parts.items():
        for number in range(count):
            name = f"{part}/ADE_{number:08}"
            write_pair(root, f"{prefix}images/{name}.jpg", f"{prefix}annotations/{name}.png", range(151))
    return root


class PaintedObjects:
    """Images on black with one object or none in each third, and their boxes: left, top, right, bottom from 0."""

    names = ("ant", "bee", "cow")
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200))

    def __init__(self):
        self._generator = np.random.default_rng(0)

    def draw(self):
        """Returns the pixels of the next image, and name and box of each object."""
        height, width = (int(side) for side in self._generator.integers(30, 60, 2))
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        objects = []
        for place in range(3):
            left, top = (int(value) for value in self._generator.integers(0, 5, 2))
            kind, present = (int(value) for value in self._generator.integers(0, [3, 4]))
            left += place * (width // 3)
            right, bottom = left + 2 + kind, top + 9 + place
            if present:
                pixels[top:bottom, left:right] = self.colours[kind]
                objects.append((self.names[kind], (left, top, right, bottom)))
        return pixels, objects


def write_voc(root, lists, prefix=""):
    """Writes VOC's detection, cows as difficult: ``lists`` maps a list to its number of images."""
    base, painted = root / prefix, PaintedObjects()
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, count in lists.items():
        names = [f"{name}_{number:03}" for number in range(count)]
        (base / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{each}\n" for each in names))
        for each in names:
            pixels, objects = painted.draw()
            Image.fromarray(pixels).save(base / "JPEGImages" / f"{each}.jpg", "PNG")
            (base / "Annotations" / f"{each}.xml").write_text(voc_xml(pixels.shape, objects))
    return root


def voc_xml(shape, objects):
    """Returns VOC's XML, whose pixels are numbered from 1."""
    height, width = shape[:2]
    written = "".join(
        f"<object><name>{name}</name><difficult>{int(name == 'cow')}</difficult><bndbox><xmin>{box[0] + 1}</xmin>"
        f"<ymin>{box[1] + 1}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{written}</annotation>"


def write_coco(root, parts, *, file="annotations/instances_{}2017.json", folder="{}2017"):
    """Writes COCO's files, cows as crowds: ``parts`` maps a part to its number of images."""
    painted = PaintedObjects()
    for part, count in parts.items():
        images, annotations = [], []
        where = root / folder.format(part)
        where.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels, objects = painted.draw()
            Image.fromarray(pixels).save(where / f"{number:03}.png")
            height, width = pixels.shape[:2]
            image = {"id": 900 - number, "file_name": f"{number:03}.png", "width": width, "height": height}
            images.append(image)
            for name, (left, top, right, bottom) in objects:
                annotation = {
                    "id": len(annotations),
                    "image_id": image["id"],
                    "category_id": {"ant": 90, "bee": 7, "cow": 21}[name],
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": int(name == "cow"),
                    "segmentation": [[1, 2, 3, 4, 5, 6]],
                }
                annotations.append(annotation)
        categories = [{"id": 90, "name": "ant"}, {"id": 7, "name": "bee"}, {"id": 21, "name": "cow"}]
        path = root / file.format(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root
