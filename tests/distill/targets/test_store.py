"""What the store promises: nothing stale, torn or damaged is ever used, and several may write."""

import logging
import os
import signal
import time

import numpy as np
import pytest
import torch
from pyarrow import fs
from store_writer import fill_once, server, write_for_ever
from target_scene import all_paths

from distill.data.transforms import RandomCrop
from distill.identity import state_digest
from distill.paths import AttentionTransfer, SoftTarget
from distill.targets import LocalShards, Numerics, RemoteShards, TargetStore, answer_column, path_column
from distill.targets.shard import ShardError, decode, encode
from distill.targets.store import StoreRangeError
from distill.tasks import Classification


def open_all(scene, *, epoch=0, names=("AttentionTransfer", "SoftTarget"), loader=None, teacher=None, **options):
    teacher = teacher or scene.teacher()
    distiller = scene.distiller(teacher)
    stored = scene.stored(teacher, **options)
    columns = [path_column(name, distiller.path(name)) for name in names]
    mapped = stored.open(columns, loader or scene.loader(), epoch, precision="float32")
    return mapped, stored.num_asked


def files(scene):
    return sorted(scene.shards.root.rglob("*.arrow"))


def test_what_is_there_is_not_asked_again(scene):
    assert open_all(scene)[1] == 40
    assert open_all(scene)[1] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": 2},
        {"fingerprint": "other data"},
        {"loader": {"data_seed": 1}},
        {"loader": {"batch_size": 10}},
        {"loader": {"transforms": (RandomCrop(padding=1),)}},
        {"loader": {"last": 39}},
        {"epoch": 1},
        {"precision": "float16"},
        {"names": ("NSTGram",)},
    ],
)
def test_a_change_of_anything_that_decides_the_answer_asks_again(scene, change):
    open_all(scene)
    options = dict(change)
    if "teacher" in options:
        options["teacher"] = scene.teacher(seed=options["teacher"])
    if "loader" in options:
        options["loader"] = scene.loader(**options["loader"])
    assert open_all(scene, **options)[1] > 0


def test_half_precision_does_not_care_about_the_batch_size(scene):
    open_all(scene, precision="float16")
    assert open_all(scene, precision="float16", loader=scene.loader(batch_size=10))[1] == 0


def test_many_small_shards_read_like_one(scene):
    whole, _ = open_all(scene, names=("AttentionTransfer",))
    scene.shards.discard("")
    parts, _ = open_all(scene, names=("AttentionTransfer",), shard_bytes=6000)
    assert len(files(scene)) > 3
    positions = np.array([39, 0, 17, 3, 22])
    one, other = whole.read(positions)["AttentionTransfer"], parts.read(positions)["AttentionTransfer"]
    assert all(torch.equal(one[layer], other[layer]) for layer in one)


def test_every_flipped_bit_and_every_truncation_is_found(scene, caplog):
    """200 flips and 60 truncations: Arrow itself notices almost none of them."""
    expected, _ = open_all(scene)
    positions = np.arange(40)
    [path, *_] = files(scene)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    flips = [("flip", int(bit)) for bit in generator.integers(0, 8 * len(content), 200)]
    cuts = [("cut", int(size)) for size in generator.integers(0, len(content), 60)]
    for kind, place in flips + cuts:
        damaged = bytearray(content)
        if kind == "flip":
            damaged[place // 8] ^= 1 << place % 8
        else:
            del damaged[place:]
        aside = path.with_suffix(".part")
        aside.write_bytes(damaged)
        aside.rename(path)
        with pytest.raises(ShardError, match="damaged"):
            scene.shards.get(str(path.parent.relative_to(scene.shards.root)), path.name)
    with caplog.at_level(logging.WARNING):
        read, num_asked = open_all(scene)
    assert path.name in caplog.text
    assert num_asked == 40  # asked again, and right
    for name, layers in expected.read(positions).items():
        assert all(torch.equal(value, read.read(positions)[name][layer]) for layer, value in layers.items())
    assert open_all(scene)[1] == 0


def test_a_shard_under_another_ones_name_is_never_used(scene, tmp_path):
    tensors = [torch.arange(6.0).reshape(3, 2)]
    scene.shards.put("a/b", "stem", encode(tensors, {"view": 1}))
    [name] = scene.shards.names("a/b")
    path = scene.shards.get("a/b", name)
    assert np.array_equal(decode(path, {"view": 1})[0], tensors[0].numpy())
    with pytest.raises(ShardError, match="another question"):
        decode(path, {"view": 2})


def test_an_open_reader_survives_removal_and_rewriting(scene):
    """Removing or replacing a mapped file leaves the mapping as it was; truncating it would kill the process."""
    mapped, _ = open_all(scene)
    before = mapped.read(np.arange(40))
    for _ in range(20):
        for folder in scene.shards.folders():
            scene.shards.discard(folder)
        open_all(scene)
    after = mapped.read(np.arange(40))
    assert all(torch.equal(before[name][layer], after[name][layer]) for name in before for layer in before[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", [(), (5,), (3, 2, 2)])
def test_a_shard_keeps_type_and_shape(tmp_path, dtype, shape):
    value = (100 * torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    path = tmp_path / "x.arrow"
    path.write_bytes(encode([value, value[:, None]], {}))
    one, other = decode(path, {})
    assert torch.equal(torch.from_numpy(one.copy()), value)
    assert other.shape == (4, 1, *shape)


def test_what_half_precision_cannot_hold_is_refused(scene):
    teacher = scene.teacher()
    with torch.no_grad():
        teacher.model.fc.weight.mul_(1e6)
    stored = scene.stored(teacher, precision="float16")
    distiller = scene.distiller(teacher, paths={"SoftTarget": SoftTarget()})
    columns = [path_column("SoftTarget", distiller.path("SoftTarget"))]
    with pytest.raises(StoreRangeError, match=r"SoftTarget: a target of .* exceeds the range of float16.*exact"):
        stored.fill(columns, scene.loader(), 0, precision="float32")
    assert stored.open(columns, scene.loader(), 0, precision="float32") is None  # the teacher is asked for every batch


def test_paths_that_need_the_same_target_share_one(scene, monkeypatch):
    put, writes = LocalShards._put, []
    monkeypatch.setattr(LocalShards, "_put", lambda shards, *file: writes.append(file[:2]) or put(shards, *file))
    mapped, num_asked = open_all(scene, names=("SoftTarget", "AttentionTransfer", "DKD", "Logits"))
    assert num_asked == 40
    assert len({file.parent for file in files(scene)}) == 2
    assert len(writes) == len(set(writes)) == len(files(scene))
    read = mapped.read(np.arange(8))
    assert torch.equal(read["SoftTarget"]["logits"], read["DKD"]["logits"])


class FullDisk(LocalShards):
    """Has no room."""

    def _put(self, folder, name, content):
        raise OSError(28, "No space left on device")


def test_a_store_that_cannot_be_written_leaves_the_training_to_the_teacher(scene, tmp_path, caplog):
    scene.shards = FullDisk(tmp_path / "full")
    mapped, _ = open_all(scene)
    assert mapped is None
    assert "No space left" in caplog.text


def test_the_folders_that_were_used_least_recently_make_room(scene):
    for epoch, name in enumerate(("AttentionTransfer", "SoftTarget", "NSTGram")):
        open_all(scene, names=(name,), epoch=epoch)
    folders = scene.shards.folders()
    for age, folder in enumerate(folders):
        os.utime(scene.shards.root / folder / ".used", (1000 + age, 1000 + age))
    sizes = {folder: size for folder, (size, _) in folders.items()}
    oldest, second, newest = folders
    budget = sum(sizes.values())
    assert scene.shards.make_room(0, budget) == []
    assert scene.shards.make_room(1, budget, keep=[oldest]) == [second]
    assert sorted(scene.shards.folders()) == sorted([oldest, newest])


def test_several_writers_at_once_leave_a_whole_store(scene):
    context = server()
    barrier = context.Barrier(3)
    writers = [context.Process(target=fill_once, args=(scene.shards.root, scene.source, barrier)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert open_all(scene)[1] == 0
    assert not list(scene.shards.root.rglob("*.part"))


def test_a_writer_killed_at_any_moment_leaves_only_whole_shards(tmp_path):
    context = server()
    for attempt in range(15):
        begun = context.Event()
        writer = context.Process(target=write_for_ever, args=(tmp_path, begun))
        writer.start()
        assert begun.wait(60)
        time.sleep(0.03 + 0.013 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    shards = LocalShards(tmp_path)
    names = shards.names("t/c")
    assert len(names) > 5  # written at all, on however busy a machine
    for name in names:
        shards.get("t/c", name)


def test_leftovers_of_dead_writers_are_swept(scene):
    open_all(scene)
    folder = files(scene)[0].parent
    old, new = folder / ".old.part", folder / ".new.part"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    open_all(scene, epoch=1)
    assert not old.exists()
    assert new.exists()


def test_a_store_behind_a_file_system_reads_and_repairs_alike(scene, tmp_path):
    remote, cache = tmp_path / "bucket", tmp_path / "cache"
    scene.shards = RemoteShards(fs.LocalFileSystem(), str(remote), cache)
    expected, num_asked = open_all(scene)
    assert num_asked == 40
    assert open_all(scene)[1] == 0
    assert {folder for folder, _ in scene.shards.folders().items()} == {
        str(path.parent.relative_to(remote)) for path in remote.rglob("*.arrow")
    }
    [torn, *_] = sorted(remote.rglob("*.arrow"))
    torn.write_bytes(torn.read_bytes()[:-7])
    scene.shards = RemoteShards(fs.LocalFileSystem(), str(remote), tmp_path / "another machine")
    again, num_asked = open_all(scene)
    assert num_asked == 40
    one, other = expected.read(np.arange(40)), again.read(np.arange(40))
    assert all(torch.equal(one[name][layer], other[name][layer]) for name in one for layer in one[name])


def test_the_teachers_answers_are_stored_too(scene):
    teacher = scene.teacher()
    stored = scene.stored(teacher)
    loader = scene.loader(40, 57, training=False)
    mapped = stored.open([answer_column(Classification())], loader, 0, precision="float32")
    batches = [loader.batch_at(positions, 0).images for positions in loader.shares(0)]
    expected = torch.cat([teacher.model(images).argmax(1) for images in batches])
    assert torch.equal(mapped.read(np.arange(17))["answers"]["answer"], expected)


class Own(AttentionTransfer):
    """A path of a user's own, with a target of its own."""

    def __init__(self, power=2.0, secret=None):
        super().__init__()
        self.power, self.secret = power, secret

    def layer_target(self, layer, teacher):
        return super().layer_target(layer, teacher) ** self.power


class OnlyTheLoss(AttentionTransfer):
    """A path of a user's own with the same target."""

    def layer_loss(self, layer, student, target):
        return 2 * super().layer_loss(layer, student, target)


def test_a_path_of_ones_own_is_known_by_all_of_its_options(scene):
    teacher = scene.teacher()
    paths = {"one": Own(), "same": Own(), "other": Own(3.0), "plain": AttentionTransfer(), "loss": OnlyTheLoss()}
    distiller = scene.distiller(teacher, paths=paths)
    digest = {name: path_column(name, distiller.path(name)).digest for name in paths}
    assert digest["one"] == digest["same"] != digest["other"]
    assert digest["plain"] == digest["loss"] != digest["one"]


def test_a_path_that_cannot_be_identified_is_not_stored(scene):
    distiller = scene.distiller(scene.teacher(), paths={"own": Own(secret=lambda x: x)})
    with pytest.raises(ValueError, match=r"Own\.secret is a function, which cannot be told"):
        path_column("own", distiller.path("own"))


def test_a_path_that_declares_it_is_not_stored(scene):
    paths = all_paths()
    distiller = scene.distiller(scene.teacher(), paths=paths)
    paths["NSTGram"].storable = False
    with pytest.raises(ValueError, match=r"paths\.NSTGram: NSTGram declares"):
        path_column("NSTGram", distiller.path("NSTGram"))


def test_different_teachers_have_different_stores(scene):
    one, other = scene.teacher(seed=1), scene.teacher(seed=2)
    assert state_digest(one.model) == state_digest(scene.teacher(seed=1).model)
    assert state_digest(one.model) != state_digest(other.model)
    column = answer_column(Classification())
    stores = [TargetStore(scene.shards, state_digest(teacher.model)) for teacher in (one, other)]
    numerics = Numerics.of(scene.loader(), "float32")
    assert len({store.folder(column, numerics) for store in stores}) == 2
