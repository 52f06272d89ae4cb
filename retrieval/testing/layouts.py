"""The contract of a layout of pairs."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from numpy import testing

from retrieval.errors import PairsError
from retrieval.images import open_image
from retrieval.pairs import Pairs
from retrieval.pairs.layout import Collector, Layout, Source
from retrieval.pairs.layouts import LAYOUTS


def check_layout(layout: Layout, write: Callable[[Path], Path], damage: Callable[[Path], object]) -> None:
    """Write a source of pairs and read it: it is recognized, read whole, twice alike, and its images can be opened.

    Args:
        layout: It must be listed in `LAYOUTS`, before the layouts that would match the source as well.
        write: Writes a source of at least two pairs into an empty folder, and returns its path.
        damage: Makes a part of the source at that path unreadable. A build from it must keep the items of that part:
            reading raises a PairsError, or skips something that may hide items.

    Raises:
        AssertionError: A result breaks the contract; the message has both sides.
    """
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        source = Source(write(root))
        testing.assert_equal([one for one in LAYOUTS if one.matches(source)][:1], [layout])
        pairs = _read(layout, source)
        testing.assert_equal(pairs.skipped, ())
        testing.assert_array_less(1, len(pairs))
        testing.assert_equal(_read(layout, Source(source.path)), pairs)
        testing.assert_equal(len({(pair.id, pair.image.name) for pair in pairs}), len(pairs))
        for pair in pairs:
            open_image(pair.image)
            testing.assert_equal(pair.image.path.is_relative_to(root), desired=True)
            testing.assert_equal(pair.captions, tuple(dict.fromkeys(filter(None, pair.captions))))
            testing.assert_equal(json.loads(json.dumps(pair.attributes)), pair.attributes)
        damage(source.path)
        with suppress(PairsError):
            damaged = _read(layout, Source(source.path))
            testing.assert_equal(damaged != pairs, desired=True, err_msg="the damage goes unnoticed")
            lost = {*pairs.by_item()} - {*damaged.by_item()}
            if not any(one.may_hide_items for one in damaged.skipped):
                testing.assert_equal(lost, set(), err_msg="the next build would drop these items")
        (root / "other.xyz").write_text("something else")
        testing.assert_equal(layout.matches(Source(root / "other.xyz")), desired=False)


def _read(layout: Layout, source: Source) -> Pairs:
    collector = Collector()
    root, name = layout.read(source, collector)
    return collector.to_pairs(source.path, root=root, layout=name)
