"""What COCO's files say of all images' objects, read whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distill.data.object_record import ObjectRecord
from distill.data.object_records import ObjectRecords
from distill.data.roots import Root


class COCORecords(ObjectRecords):
    """Records that are in memory.

    Args:
        records: one an image.
    """

    def __init__(self, records: Sequence[ObjectRecord]) -> None:
        self._records = records

    def values(self) -> Iterable[bytes]:
        for record in self._records:
            yield repr((record.size, record.num_others, len(record.labels))).encode()
            yield record.boxes.astype("<f4").tobytes()
            yield record.labels.astype("<i8").tobytes()
            yield record.ignored.tobytes()

    def read(self, root: Root, index: int) -> ObjectRecord:
        return self._records[index]
