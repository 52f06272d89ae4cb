import csv

from retrieval.pairs import Skipped
from retrieval.pairs.skip_report import COLUMNS, write_skip_report


def test_the_report_has_a_line_for_each_skipped_row_and_replaces_the_last_one(tmp_path):
    report = tmp_path / "refused.csv"
    report.write_text("an older one")
    skipped = [
        Skipped("f.csv line 7 (A1)", "names no image", "f.csv line 7", "A1"),
        Skipped("https://x.example/née.jpg", "there is no such file in /p (f.csv line 8)", "f.csv line 8", "B,2"),
        Skipped("bad.jpg", "is empty"),
        Skipped("notes.md", 'is not an image (starts with "#")'),
    ]
    write_skip_report(report, skipped, ids={"bad.jpg": "C3"})
    with report.open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file)) == [
            list(COLUMNS),
            ["f.csv line 7", "A1", "", "names no image"],
            ["f.csv line 8", "B,2", "https://x.example/née.jpg", "there is no such file in /p"],
            ["", "C3", "bad.jpg", "is empty"],
            ["", "", "notes.md", 'is not an image (starts with "#")'],
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["refused.csv"]
