import io
import json
import tarfile
from pathlib import Path

from hostile_files import encoded, picture
from pair_files import JPEG, captions_by_name, read_error, skip_reasons, write_pictures, write_text

from retrieval.pairs import read_pairs


def test_coco_captions_find_their_images_beside_or_above(tmp_path):
    write_pictures(tmp_path, "val2017/1.jpg", "val2017/2.jpg")
    (tmp_path / "annotations").mkdir()
    value = {
        "images": [{"id": 1, "file_name": "1.jpg", "license": 3}, {"id": 2, "file_name": "2.jpg"}, {"id": 3}, "odd"],
        "annotations": [
            *({"image_id": 1, "caption": text} for text in ("a", "b", "a")),
            {"image_id": "2", "caption": None},
            {"image_id": 9, "caption": "lost"},
        ],
    }
    source = write_text(tmp_path / "annotations" / "captions_val2017.json", json.dumps(value))
    pairs = read_pairs(source)
    assert (pairs.layout, pairs.root) == ("coco", tmp_path / "val2017")
    assert [(pair.id, pair.image.name, pair.captions, pair.attributes) for pair in pairs] == [
        ("1", "1.jpg", ("a", "b"), {"license": 3}),
        ("2", "2.jpg", (), {}),
    ]
    assert skip_reasons(pairs) == {
        "captions_val2017.json annotation 5": "belongs to no image of the list",
        "captions_val2017.json image 3 (3)": "names no image",
    }
    source = source.rename(tmp_path / "moved.json")
    assert len(read_pairs(source)) == 0
    assert len(read_pairs(source, images=tmp_path / "val2017")) == 2


def test_karpathy_splits_have_captions_and_attributes(tmp_path):
    write_pictures(tmp_path, "images/val2014/c.jpg", "images/f.jpg")
    images = [
        {
            "filepath": "val2014",
            "filename": "c.jpg",
            "split": "test",
            "imgid": 0,
            "sentids": [1],
            "sentences": [{"raw": "one", "tokens": ["one"]}, {"raw": " two "}],
        },
        {"filename": "f.jpg", "split": "train", "imgid": 1, "sentences": []},
    ]
    pairs = read_pairs(write_text(tmp_path / "dataset.json", json.dumps({"images": images, "dataset": "coco"})))
    assert pairs.layout == "karpathy"
    assert captions_by_name(pairs) == {"val2014/c.jpg": ("one", "two"), "f.jpg": ()}
    assert pairs[0].attributes == {"split": "test", "imgid": 0}


def test_a_json_list_of_rows_is_a_table_and_other_json_is_refused(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    assert captions_by_name(read_pairs(write_text(tmp_path / "rows.json", '[{"image": "a.jpg", "text": "x"}, 3]'))) == {
        "a.jpg": ("x",)
    }
    assert "holds no list of images" in read_error(write_text(tmp_path / "other.json", '{"a": 1}'))
    assert "is not JSON that can be read" in read_error(write_text(tmp_path / "broken.json", '{"images": ['))


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_webdataset_shards_are_read_without_unpacking(tmp_path):
    png = encoded(picture(seed=1), "PNG")
    source = shard(
        tmp_path / "00000.tar",
        {
            "./b/0001.jpg": JPEG,
            "./b/0001.txt": b"one\ntwo",
            "./b/0001.json": b'{"caption": "no", "w": 3}',
            "0002.cls": b"7",
            "0002.input.PNG": png,
            "0003.json": b'{"caption": "only"}',
            "0003.webp": JPEG,
            "0004.txt": b"no picture",
            "._0005.jpg": b"junk",
            "0006.jpg": JPEG,
            "0006.txt": b"caf\xe9",
        },
    )
    pairs = read_pairs(source)
    assert pairs.layout == "webdataset"
    assert captions_by_name(pairs) == {
        "00000.tar/b/0001.jpg": ("one", "two"),
        "00000.tar/0002.input.PNG": (),
        "00000.tar/0003.webp": ("only",),
        "00000.tar/0006.jpg": (),
    }
    assert [pair.attributes for pair in pairs] == [{"w": 3}, {"cls": 7}, {}, {}]
    assert [pair.image.read() for pair in pairs] == [JPEG, png, JPEG, JPEG]
    assert skip_reasons(pairs)["00000.tar/0004"] == "has no image"
    assert "UTF-8" in skip_reasons(pairs)["00000.tar/0006.txt"]
    assert len(pairs.skipped) == 2


def test_a_damaged_shard_is_read_up_to_the_damage(tmp_path):
    for number in range(2):
        shard(tmp_path / f"{number}.tar", {f"{n}.jpg": JPEG for n in range(3)})
    write_text(tmp_path / "0_stats.json", "{}")
    whole = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(JPEG) + 2000])
    pairs = read_pairs(tmp_path)
    assert list(captions_by_name(pairs))[:4] == ["0.tar/0.jpg", "0.tar/1.jpg", "0.tar/2.jpg", "1.tar/0.jpg"]
    assert "is a damaged tar file" in skip_reasons(pairs)["1.tar"]
    assert "is a damaged tar file" in skip_reasons(read_pairs(write_text(tmp_path / "no.tar", "x" * 3000)))["no.tar"]
    blank = bytearray(whole)
    start = whole.find(b"1.jpg")
    blank[start + 148 : start + 156] = b"xxxxxxxx"
    (tmp_path / "1.tar").write_bytes(blank)
    assert "is a damaged tar file" in skip_reasons(read_pairs(tmp_path / "1.tar"))["1.tar"]


def test_hostile_shards_terminate_and_their_names_are_printable(tmp_path):
    """A member of negative size, after which some versions of Python read the same header for ever; a Latin-1 name."""
    whole = bytearray(shard(tmp_path / "a.tar", {"0.jpg": JPEG, "1.jpg": JPEG}).read_bytes())
    start = whole.find(b"1.jpg")
    whole[start + 124 : start + 136] = b"\xff" * 8 + (-2048).to_bytes(4, "big", signed=True)
    whole[start + 148 : start + 156] = b" " * 8
    whole[start + 148 : start + 156] = b"%06o\0 " % sum(whole[start : start + 512])
    (tmp_path / "a.tar").write_bytes(whole)
    pairs = read_pairs(tmp_path / "a.tar")
    assert "0.jpg" in next(iter(captions_by_name(pairs)))
    assert "is a damaged tar file" in skip_reasons(pairs)["a.tar"]
    with tarfile.open(tmp_path / "b.tar", "w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("schön.jpg"))
        tar.addfile(tarfile.TarInfo("b.jpg"))
    pairs = read_pairs(tmp_path / "b.tar")
    assert list(captions_by_name(pairs)) == ["b.tar/b.jpg"]
    assert skip_reasons(pairs) == {"b.tar/sch\\udcf6n.jpg": "has a name that is not UTF-8; rename it"}
