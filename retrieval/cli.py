"""The command line: parse, call, print. What a command means is in the modules that it calls.

Hits and figures go to stdout; progress and notices to stderr. A usage error exits 2, any other error 1 with one line.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from retrieval.errors import CatalogError, ColumnError, QueryError, RetrievalError, ServiceError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval.catalog import Catalog, Hit, IndexKind, Mode, SyncReport
    from retrieval.images import ImageSource
    from retrieval.pairs import Pairs, Skipped
    from retrieval.records.items import Target

_DEVICES = click.Choice(["auto", "cpu", "cuda"])
_KINDS = click.Choice(["auto", "exact", "hnsw", "ivf", "ivfpq"])
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)

_SHOWN_BESIDE_REPORT = 20

_STARTER_NOTICE = (
    "no model named: the starter, which finds everyday things by name or short description; a stronger one: "
    "--model ViT-B-32-256/datacomp_s34b_b86k (downloaded once), or a folder that `retrieval train` wrote"
)


def _share(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | float | None:
    if value is None or value in {"auto", "off"}:
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto, off, nor a number") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="crossmodal-retrieval")
def commands() -> None:
    """Search pictures by text, and texts by picture."""


@commands.command()
@click.argument("pairs", type=_PATH)
@click.argument("catalog", type=_PATH)
@click.option(
    "--model", metavar="NAME", help="Encoder of a new catalog: starter, a run folder, name/tag, or hf-hub:NAME."
)
@click.option("--images", type=_FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option(
    "--map",
    "fields",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="Column of PAIRS for id, image, title, description or any attribute; FIELD= drops one. Repeat it.",
)
@click.option("--report", type=_FILE, help="Write every row and picture that was refused into a CSV, with the reason.")
@click.option("--index", type=_KINDS, help="Kind of index; auto picks by count and memory, and says what it picked.")
@click.option("--device", type=_DEVICES, default="auto", show_default=True)
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be read.")
@click.option("--prune", is_flag=True, help="Let more than half of this source's items be dropped.")
@click.option("--restore", is_flag=True, help="Take back items that were deleted by id.")
def build(
    pairs: Path,
    catalog: Path,
    *,
    model: str | None,
    images: Path | None,
    fields: Sequence[str],
    report: Path | None,
    index: "IndexKind | None",
    device: str,
    strict: bool,
    prune: bool,
    restore: bool,
) -> None:
    """Make CATALOG hold what PAIRS holds: add what is new, change what changed, drop what is gone."""
    from retrieval.catalog import Catalog, is_catalog
    from retrieval.encoder import STARTER, load_encoder
    from retrieval.pairs import read_pairs
    from retrieval.records.database import is_blank

    if is_catalog(pairs):
        raise click.UsageError(f"{pairs} is a catalog, not a source of pairs: build PAIRS CATALOG.")
    _check_report(report, pairs)
    with _usage():
        source = read_pairs(pairs, images=images, map=_mapped(fields), empty=prune)
    _write_refusals(report, source, source.skipped)
    _notice_skipped(source.skipped, report)
    if model is None and (not catalog.exists() or (is_catalog(catalog) and is_blank(catalog))):
        _notice(_STARTER_NOTICE)
        model = STARTER
    encoder = None if model is None else load_encoder(model, device=device)
    with Catalog.open(catalog, encoder=encoder, device=device) as opened:
        with _interruptible("Whole batches are kept: run it again to go on."), _bar("items") as progress:
            synced = opened.build(source, index=index, strict=strict, prune=prune, restore=restore, progress=progress)
        _write_refusals(report, source, synced.skipped)
        _notice_build(synced, told=len(source.skipped), report=report)
        _notice(opened.info()["index"])
    click.echo(_summary(synced))


@commands.command()
@click.argument("catalog", type=_PATH)
@click.argument("text", nargs=-1)
@click.option("--image", type=_FILE, help="Search with this picture.")
@click.option("--like", metavar="ITEM", help="Search with the pictures of this item.")
@click.option("--minus", metavar="TEXT", help="Away from these words.")
@click.option("--weight", "weights", metavar="PART=X", multiple=True, help="Weight of text, image, like or minus.")
@click.option(
    "--where", "filters", metavar="EXPR", multiple=True, help='Filter: "price<60", color=gray; repeat to and.'
)
@click.option(
    "--images", "target", flag_value="images", default=None, help="Rank images (default for a text or a mix)."
)
@click.option(
    "--captions", "target", flag_value="captions", default=None, help="Rank captions (default for an image alone)."
)
@click.option("--items", "target", flag_value="items", default=None, help="Rank items, pictures and captions together.")
@click.option(
    "--words", "mode", flag_value="words", default=None, help="Rank by the text's words alone, not its meaning."
)
@click.option("--hybrid", "mode", flag_value="hybrid", default=None, help="Rank by words and meaning together.")
@click.option("--sort", metavar="NAME", multiple=True, help="Sort by an attribute; -NAME from the greatest. Repeat it.")
@click.option("--group", metavar="NAME", help="Of items that share this attribute, only the best.")
@click.option("--floor", type=click.FloatRange(-1, 1), metavar="SCORE", help="Least cosine of a result.")
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Number of results.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out so many of the best, to page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--html", type=_FILE, help="Also write the results as one self-contained page.")
@click.option("--device", type=_DEVICES, default="auto", show_default=True)
def search(
    catalog: Path,
    text: Sequence[str],
    *,
    image: Path | None,
    like: str | None,
    minus: str | None,
    weights: Sequence[str],
    filters: Sequence[str],
    target: "Target | None",
    mode: "Mode | None",
    sort: Sequence[str],
    group: str | None,
    floor: float | None,
    k: int,
    offset: int,
    as_json: bool,
    html: Path | None,
    device: str,
) -> None:
    """Search CATALOG by TEXT, by an image, by an item, or by a weighted mix of them; or browse it by --where alone."""
    from retrieval.catalog import Catalog

    words = " ".join(text) or None
    if html is not None and not html.absolute().parent.is_dir():
        raise click.UsageError(f"--html {html}: there is no folder {html.absolute().parent}")
    with _usage():
        where = _where(filters)
        weighted = dict(_weight(part) for part in weights)
    with Catalog.open(catalog, device=device, read_only=True) as opened, _usage():
        hits = opened.search(
            words,
            image=image,
            like=like,
            minus=minus,
            weights=weighted,
            mode=mode or "vectors",
            target=target,
            k=k,
            offset=offset,
            where=where,
            sort=sort,
            group=group,
            floor=floor,
        )
        for hit in hits:
            click.echo(json.dumps(_hit_record(hit), ensure_ascii=False) if as_json else _hit_line(hit))
        if not hits:
            _notice(_why_nothing(where, opened.info()["attributes"]))
        if html is not None:
            query = {"text": words, "image": image, "like": like, "minus": minus, "filters": tuple(filters)}
            _write_sheet(html, hits, pictures=[_source(opened, hit) for hit in hits], query=query)


@commands.command()
@click.argument("pairs", type=_PATH)
@click.argument("run", type=_PATH)
@click.option(
    "--model",
    metavar="NAME",
    help="Checkpoint to go on from (starter); or, from scratch, small, small-lstm or another architecture.",
)
@click.option("--images", type=_FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option(
    "--validation", type=_PATH, metavar="PAIRS", help="Pairs to validate on; else a tenth is split off by item."
)
@click.option(
    "--image-weights", metavar="FILE", help="Safetensors of the image tower, where --model is an architecture."
)
@click.option("--text-weights", metavar="PATH", help="Safetensors of the text tower, or a folder of transformers.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the pairs.")
@click.option("--batch-size", type=click.IntRange(min=2), help="Pairs in a batch.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak of the learning rate.")
@click.option(
    "--tune",
    type=click.Choice(["both", "image", "text", "heads"]),
    default="both",
    show_default=True,
    help="What is trained. With text, every image vector of a catalog stays valid.",
)
@click.option("--image-blocks", type=click.IntRange(min=0), help="Train only so many last blocks of the image tower.")
@click.option("--text-blocks", type=click.IntRange(min=0), help="Train only so many last blocks of the text tower.")
@click.option(
    "--layer-decay",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Factor of the learning rate a block from the head down.",
)
@click.option(
    "--head-learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak for the heads, where it differs."
)
@click.option("--flip", type=click.FloatRange(0, 1), help="How often pictures are mirrored whose texts allow it.")
@click.option("--color-jitter", type=click.FloatRange(0, 0.5), help="How far colours go where no text names one.")
@click.option("--balance", metavar="NAME", help='Show each value of this attribute equally often; "text": each text.')
@click.option("--word-dropout", type=click.FloatRange(0, 0.9), help="Share of a caption's words left out in training.")
@click.option(
    "--loss",
    type=click.Choice(["contrastive", "sigmoid", "triplet"]),
    default="contrastive",
    show_default=True,
    help="InfoNCE as in CLIP, SigLIP's, or VSE++'s with the hardest of the batch.",
)
@click.option("--margin", type=click.FloatRange(0, 2), help="Of the triplet loss, a cosine.")
@click.option(
    "--positives",
    type=click.Choice(["mask", "share", "own"]),
    default="mask",
    show_default=True,
    help="Leave out other right texts of a batch, take them for right, or for wrong.",
)
@click.option("--label-smoothing", type=click.FloatRange(0, 0.5), help="Share of the contrastive target to spread.")
@click.option("--weight-attribute", metavar="NAME", help="Attribute of the pairs by which they count in the loss.")
@click.option("--micro-batch", type=click.IntRange(min=1), help="Pictures that go through the towers at once.")
@click.option("--hard-negatives", type=click.FloatRange(0, 0.9), help="Share of each batch that is hard for the rest.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Numbers that the towers compute in.",
)
@click.option("--compile", is_flag=True, help="Compile the towers first: worth it for hours of steps.")
@click.option("--lora-rank", type=click.IntRange(min=1), help="Train thin matrices beside those of attention and MLP.")
@click.option("--ema", type=click.FloatRange(min=0, max=0.99999), help="Decay of a moving average of the weights.")
@click.option(
    "--average",
    metavar="auto|off|X",
    callback=_share,
    help="Share of the tuned weights in their mix with the start's; auto picks it on the validation pairs.",
)
@click.option("--patience", type=click.IntRange(min=1), help="Stop after so many epochs without a better recall.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=_DEVICES, default="auto", show_default=True)
@click.option(
    "--cache-folder", type=click.Path(file_okay=False), help="Where pictures that memory does not hold go; RUN."
)
@click.option("--tensorboard", is_flag=True, help="Write the log for TensorBoard too, into RUN/training/tensorboard.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN.")
def train(
    pairs: Path,
    run: Path,
    *,
    images: Path | None,
    validation: Path | None,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a dual encoder on PAIRS, into the folder RUN."""
    with _interruptible("To go on, run it again with --resume."), _TrainingBar() as bar:
        from retrieval.pairs import read_pairs
        from retrieval.train import TrainConfig, Watch
        from retrieval.train import train as train_encoder
        from retrieval.train.crew import leads

        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        try:
            config = TrainConfig(**given)
        except TrainingError as error:
            raise click.UsageError(str(error)) from error
        source = read_pairs(pairs, images=images)
        held_out = None if validation is None else read_pairs(validation)
        if "model" not in given and not resume and leads():
            _notice(_STARTER_NOTICE + "; --model small learns from scratch")
        watch = Watch(progress=bar.progress, opened=bar.opened, graded=bar.graded)
        result = train_encoder(source, run, config=config, validation=held_out, resume=resume, watch=watch)
    if leads():
        _notice_skipped((*source.skipped, *result.skipped))
        _notice(f"wrote {run / 'report.html'}")
        click.echo(result.summary())


@commands.command()
@click.argument("catalog", type=_PATH)
@click.argument("run")
@click.option("--device", type=_DEVICES, default="auto", show_default=True)
def adopt(catalog: Path, run: str, *, device: str) -> None:
    """Switch CATALOG over to RUN, trained with --tune text, without embedding a picture again."""
    from retrieval.catalog import Catalog
    from retrieval.encoder import load_encoder

    with Catalog.open(catalog, device=device) as opened:
        encoder = load_encoder(run, device=device)
        with _interruptible("The catalog is as it was."), _bar("captions") as progress:
            adoption = opened.adopt(encoder, progress=progress)
    click.echo(adoption.summary())


@commands.command()
@click.argument("pairs", type=_PATH)
@click.option(
    "--model", metavar="NAME", help="Encoder to measure: starter (default), a run folder, name/tag, or hf-hub:NAME."
)
@click.option("--catalog", type=_PATH, help="Use this catalog's encoder, and measure its index beside exact search.")
@click.option("--images", type=_FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option("--resamples", type=click.IntRange(min=0), default=1000, show_default=True, help="Bootstrap resamples.")
@click.option("--device", type=_DEVICES, default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def evaluate(
    pairs: Path,
    *,
    model: str | None,
    catalog: Path | None,
    images: Path | None,
    resamples: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure recall@K on PAIRS, text to image and image to text."""
    from retrieval.evaluate import evaluate as measure
    from retrieval.pairs import read_pairs

    if model is not None and catalog is not None:
        raise click.UsageError("Name one of --model and --catalog, not both.")
    if model is None and catalog is None:
        _notice(_STARTER_NOTICE)
    source = read_pairs(pairs, images=images)
    with _measured(model, catalog, device) as (encoder, served), _bar("pictures and texts") as progress:
        report = measure(encoder, source, resamples=resamples, served=served, progress=progress)
    _notice_skipped(report.skipped)
    click.echo(json.dumps(report.as_json(), ensure_ascii=False) if as_json else report.table())


@commands.command()
@click.argument("catalog", type=_PATH)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def delete(catalog: Path, ids: Sequence[str]) -> None:
    """Delete items of CATALOG by id; they stay deleted until `build --restore`."""
    from retrieval.catalog import Catalog

    with Catalog.open(catalog) as opened:
        count = opened.delete(ids)
    click.echo(f"deleted {count}, not there {len(set(ids)) - count}")


@commands.command()
@click.argument("catalog", type=_PATH)
@click.option("--host", metavar="ADDRESS", help="Where to listen (127.0.0.1); elsewhere only with keys.")
@click.option("--port", type=click.IntRange(min=0), help="Port (8000); 0 takes a free one.")
@click.option("--read-only", is_flag=True, default=None, help="Take no changes.")
@click.option("--keys", type=_FILE, help="File of lines `read KEY` or `write KEY`.")
@click.option("--cors-origin", "cors_origins", multiple=True, metavar="URL", help="Origin whose pages may ask; repeat.")
@click.option("--max-body", type=click.IntRange(min=1), metavar="BYTES", help="Largest request (32 MiB).")
@click.option("--max-pixels", type=click.IntRange(min=1), help="Largest picture (89,478,485).")
@click.option("--max-results", type=click.IntRange(min=1), help="Hits that a search reaches (1000).")
@click.option("--queue", type=click.IntRange(min=1), help="Requests of a kind that may wait (256).")
@click.option("--batch", type=click.IntRange(min=0), help="Searches in one forward pass; 0 measures what pays.")
@click.option("--timeout", type=click.FloatRange(min=1), help="Seconds that a request may take (30).")
@click.option("--stop", type=click.FloatRange(min=1), help="Seconds to finish in once told to stop (20).")
@click.option("--device", type=_DEVICES, default="auto", show_default=True)
def serve(catalog: Path, *, keys: Path | None, device: str, **flags: Any) -> None:
    """Serve CATALOG over HTTP. Flags are also variables: RETRIEVAL_PORT, RETRIEVAL_READ_KEYS, RETRIEVAL_WRITE_KEYS."""
    from retrieval.catalog import Catalog

    with _extra_named("serve"):
        from retrieval.server import make_app, read_settings
        from retrieval.server.keys import read_key_file
        from retrieval.server.run import serve as serve_app

    flags["cors_origins"] = flags["cors_origins"] or None
    try:
        if keys is not None:
            flags |= {f"{scope}_keys": found for scope, found in read_key_file(keys).items()}
        settings = read_settings(flags, os.environ)
    except ServiceError as error:
        raise click.UsageError(str(error)) from error
    access = "keys needed" if settings.has_keys else "no keys: open to every program on this machine"
    with Catalog.open(catalog, device=device, read_only=settings.read_only) as opened:
        serve_app(make_app(opened, settings), on_ready=lambda url: _notice(f"serving {catalog} at {url} ({access})"))


@commands.command()
@click.argument("thing", metavar="CATALOG|RUN|MODEL")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(thing: str, *, as_json: bool) -> None:
    """Describe a catalog, a run, or a model."""
    described = _describe(thing)
    if as_json:
        click.echo(json.dumps(described, ensure_ascii=False))
        return
    width = max(len(name) for name in described)
    for name, value in described.items():
        click.echo(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@commands.command()
@click.argument("folder", type=_PATH, default="demo")
def demo(folder: Path) -> None:
    """Draw a sample shop, train on it, index it, search it and measure it, all in FOLDER."""
    from retrieval.demo import run_demo

    run_demo(folder, say=click.echo)


def main() -> None:
    """Run the command line; turn every error into one line and an exit code."""
    # torch's threads spin while they wait, against the threads that decode: encoding took 3 times longer on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        commands(prog_name="retrieval")
    except RetrievalError as error:
        _fail(str(error))
    except (OSError, MemoryError) as error:
        _fail(str(error) or type(error).__name__)
    except Exception as error:
        from index.errors import IndexingError

        if isinstance(error, IndexingError):
            _fail(str(error))
        if os.environ.get("RETRIEVAL_DEBUG"):
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (set RETRIEVAL_DEBUG=1 to see where)")


def _fail(message: str) -> None:
    click.echo("Error: " + " ".join(message.split()), err=True)
    sys.exit(1)


def _notice(message: str) -> None:
    click.echo(message, err=True)


@contextmanager
def _usage() -> Iterator[None]:
    """A query that makes no sense, or a column that is not there, is a usage error: exit code 2."""
    try:
        yield
    except (QueryError, ColumnError) as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def _extra_named(extra: str) -> Iterator[None]:
    """A package that only an extra brings is missing: say which extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise RetrievalError(
            f'{error.name} is not installed: pip install "crossmodal-retrieval[{extra}]" brings it.'
        ) from error


@contextmanager
def _interruptible(what_next: str) -> Iterator[None]:
    """Ctrl-C ends the command with one line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        _fail(f"interrupted. {what_next}")


def _where(expressions: Sequence[str]) -> dict[str, Any] | None:
    from retrieval.filters.expressions import parse_expression

    parsed = [parse_expression(expression) for expression in expressions]
    return {"$and": parsed} if parsed else None


def _weight(text: str) -> tuple[str, float]:
    part, equals, value = text.partition("=")
    try:
        return part.strip(), float(value if equals else "")
    except ValueError:
        raise QueryError(f"--weight {text!r} is not PART=NUMBER, such as text=0.5") from None


def _mapped(fields: Sequence[str]) -> dict[str, str]:
    """Columns by field; `FIELD=` has an empty one."""
    found: dict[str, str] = {}
    for text in fields:
        field, equals, column = (part.strip() for part in text.partition("="))
        if not equals or not field:
            raise ColumnError(f"--map {text!r} is not FIELD=COLUMN, such as id=sku")
        if field in found:
            raise ColumnError(f"--map names {field} twice: {found[field]!r} and {column!r}")
        found[field] = column
    return found


def _check_report(report: Path | None, pairs: Path) -> None:
    if report is None:
        return
    if not report.absolute().parent.is_dir():
        raise click.UsageError(f"--report {report}: there is no folder {report.absolute().parent}")
    if report.exists() and pairs.exists() and report.samefile(pairs):
        raise click.UsageError(f"--report {report} is PAIRS itself, which it would replace")


def _write_refusals(report: Path | None, source: "Pairs", skipped: "Sequence[Skipped]") -> None:
    from retrieval.pairs.refusals import write_refusals

    if report is not None:
        write_refusals(report, skipped, ids={pair.image.name: pair.id for pair in source})


def _hit_line(hit: "Hit") -> str:
    shown = hit.image if hit.target == "images" else " ".join((hit.caption or "").split())
    return "\t".join((f"{hit.score:.4f}", _printable(hit.id), _printable(shown or "")))


def _printable(text: str) -> str:
    """A text without tabs, line ends and control codes, which would break the line or the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _why_nothing(where: Mapping[str, Any] | None, attributes: Sequence[str]) -> str:
    from retrieval.filters import filter_keys, parse_filter

    if where is None:
        return "nothing found"
    unknown = sorted(filter_keys(parse_filter(where)) - set(attributes))
    if not unknown:
        return "nothing found that the filter lets through"
    return f"nothing found: no item has an attribute {unknown[0]!r}; there are {', '.join(attributes) or 'none'}"


def _hit_record(hit: "Hit") -> Mapping[str, Any]:
    record = asdict(hit)
    del record["position"]
    return {name: value for name, value in record.items() if name not in {"ranks", "variants"} or value}


def _summary(report: "SyncReport") -> str:
    text = f"added {report.added}, changed {report.changed}, dropped {report.dropped}, unchanged {report.unchanged}"
    return text + (f", skipped {len(report.skipped)}" if report.skipped else "")


def _notice_build(synced: "SyncReport", *, told: int, report: Path | None) -> None:
    _notice_skipped(synced.skipped[told:], report)
    if synced.kept_deleted:
        _notice(f"{synced.kept_deleted} deleted before stay deleted; --restore takes them back")


def _notice_skipped(skipped: "Sequence[Skipped]", report: Path | None = None) -> None:
    """A line for each; where a report has them all, for the first ones."""
    shown = skipped if report is None else skipped[:_SHOWN_BESIDE_REPORT]
    for one in shown:
        _notice(f"skipped {one.name}: {one.reason}")
    if len(skipped) > len(shown):
        _notice(f"and {len(skipped) - len(shown)} more: see {report}")


@contextmanager
def _bar(unit: str) -> "Iterator[Callable[[int, int], None]]":
    """A progress bar on stderr, fed with (done, total)."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", file=sys.stderr, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


class _TrainingBar:
    """A progress bar on stderr from the first second on: of pictures that are opened, then of steps."""

    def __init__(self) -> None:
        self._bar, self._unit, self._recall = self._of(" pictures"), " pictures", ""

    @staticmethod
    def _of(unit: str) -> Any:
        from tqdm import tqdm

        others = os.environ.get("RANK", "0") != "0"  # `train.crew.leads`, whose import would take seconds
        return tqdm(unit=unit, file=sys.stderr, disable=others or None, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def opened(self, done: int, total: int) -> None:
        """So many of the pictures are opened."""
        self._move(done, total)

    def graded(self, recalls: Mapping[str, float]) -> None:
        """The validation pairs were ranked, where there are any."""
        if recalls:
            self._recall = f", text→image R@1 {100 * recalls['text_to_image_recall@1']:.1f}"

    def progress(self, step: int, total: int, loss: float, rate: float) -> None:  # noqa: PLR0917 -- as `train` calls it
        """A step was taken."""
        if self._unit != " steps":
            self._bar.close()
            self._bar, self._unit = self._of(" steps"), " steps"
        self._bar.set_postfix_str(f"loss {loss:.3f}, {rate:.0f} pairs/s{self._recall}", refresh=False)
        self._move(step, total)

    def _move(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


@contextmanager
def _measured(model: str | None, catalog: Path | None, device: str) -> Iterator[tuple[Any, Any]]:
    """The encoder to measure, and the search of the catalog that serves it."""
    from retrieval.catalog import Catalog
    from retrieval.encoder import STARTER, load_encoder

    if catalog is None:
        yield load_encoder(model or STARTER, device=device), None
        return
    with Catalog.open(catalog, device=device, read_only=True) as opened:
        yield opened.encoder, opened.served


def _describe(thing: str) -> Mapping[str, Any]:
    from retrieval.catalog import Catalog, is_catalog
    from retrieval.encoder import describe_encoder

    if not is_catalog(Path(thing)):
        return describe_encoder(thing)
    with Catalog.open(Path(thing), read_only=True) as opened:
        return opened.info()


def _source(catalog: "Catalog", hit: "Hit") -> "ImageSource | None":
    """Where the hit's picture is, which may be inside an archive; None where only its vector is known."""
    try:
        return None if hit.image is None else catalog.image_source(hit)
    except CatalogError:
        return None


def _write_sheet(
    path: Path, hits: "Sequence[Hit]", *, pictures: "Sequence[ImageSource | None]", query: Mapping[str, Any]
) -> None:
    from retrieval.html import Section, contact_sheet

    section = Section(hits=tuple(hits), pictures=pictures, **query)
    path.write_text(contact_sheet("Search results", [section]), encoding="utf-8")
    _notice(f"wrote {path}")
