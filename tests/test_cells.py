import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.pairs.feeds.cells import first, levels, parts, plain_text, price, slashed, truth


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("15.00 USD", (15.0, "USD")),
        ("15 usd", (15.0, "USD")),
        ("USD 15", (15.0, "USD")),
        ("15", (15.0, None)),
        ("$15.00", (15.0, None)),  # of which country?
        ("15,5 €", (15.5, "EUR")),
        ("£1,234.56", (1234.56, "GBP")),
        ("1.234,56 EUR", (1234.56, "EUR")),
        ("1 234,56 EUR", (1234.56, "EUR")),
        ("1'234.50 CHF", (1234.5, "CHF")),
        ("1,234 USD", (1234.0, "USD")),
        ("1.234 USD", (1.234, "USD")),
        ("1,234,567 JPY", (1234567.0, "JPY")),
        ("1.234.567 EUR", (1234567.0, "EUR")),
        ("0 USD", (0.0, "USD")),
        ("call us", None),
        ("", None),
        ("-3 USD", None),
        ("1.2.3 USD", None),
        ("12,34,56 USD", None),
        ("EUR 3 USD", None),
        ("nan", None),
        ("1e5 USD", None),
        ("１５ USD", None),
        ("9" * 400, None),
    ],
)
def test_a_price_is_an_amount_and_a_currency_or_nothing(text, found):
    assert price(text) == found


@given(st.integers(0, 10**9), st.sampled_from(["EUR", "USD", "SEK"]))
def test_any_price_of_whole_cents_comes_back(cents, currency):
    amount = cents / 100
    assert price(f"{amount:.2f} {currency}") == price(f"{amount:,.2f} {currency}") == (amount, currency)
    swapped = f"{amount:,.2f}".translate(str.maketrans(",.", ".,"))
    assert price(f"{swapped} {currency}") == (amount, currency)


@given(st.text(max_size=60))
def test_no_text_breaks_a_reader_of_cells(text):
    for read in (price, plain_text, levels, slashed, truth, first, parts):
        read(text)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain, 5 < 6 & 7 > 2", "plain, 5 < 6 & 7 > 2"),
        ("<p>One</p><p>Two<br>three</p>", "One Two three"),
        ("<b>bo</b>ld&nbsp;&amp; <EM class='x'>fine</EM>", "bold & fine"),
        ("&lt;p&gt;escaped &amp;amp; twice&lt;/p&gt;", "escaped & twice"),
        ("a<script>if (x) { y() }</script><style>p {}</style>b<!-- note -->c", "a b c"),
        ("<ul><li>Wool</li>\n<li>Silk</li></ul>", "Wool Silk"),
        ("cut off <a href='", "cut off <a href='"),
        ("R&D for AT&amp;T", "R&D for AT&T"),
        ("nul\0 here", "nul here"),
    ],
)
def test_what_is_left_of_html_is_its_words(html, text):
    assert plain_text(html) == text


@given(st.text(st.characters(exclude_characters="<&\0"), max_size=40))
def test_a_text_without_markup_keeps_every_word(text):
    assert plain_text(text) == " ".join(text.split())


@pytest.mark.parametrize("piece", ["<", "<a", "<script", "&", "<!--", "a" * 9, "<" + "b" * 9])
def test_no_page_takes_longer_than_its_length(piece):
    """A regular expression that goes back would take hours for a megabyte."""
    before = time.process_time()
    plain_text(piece * 100_000)
    plain_text("<" + piece.strip("<!-") * 100_000)
    assert time.process_time() - before < 5


def test_levels_lists_and_truths():
    assert levels("Apparel &amp; Accessories > Clothing > Dresses") == ["Apparel & Accessories", "Clothing", "Dresses"]
    assert levels(["Home > Women > Dresses", "Home > Sale"]) == ["Home", "Women", "Dresses", "Sale"]
    assert levels("2271") == ["2271"]
    assert levels(" > ") is levels(None) is None
    assert slashed("Black/Gray / Black") == ["Black", "Gray"]
    assert slashed("Black") == "Black"
    assert slashed("N/A") is slashed("") is slashed(None) is None
    assert [truth(text) for text in ("yes", "TRUE", "no", "false", "maybe", "", None, True, False)] == [
        *(True, True, False, False, None, None, None, True, False)
    ]
    assert parts(["a", ["b", 3.0, None, ""], True]) == ["a", "b", "3", "True"]
