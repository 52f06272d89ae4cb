import gzip

import pytest
from pair_files import read_error, skip_reasons, write_pictures, write_text

from retrieval.pairs import read_pairs

NAMESPACE = 'xmlns:g="http://base.google.com/ns/1.0"'

RSS = f"""<?xml version="1.0"?>
<rss {NAMESPACE} version="2.0">
<channel>
<title>Example - Online Store</title>
<link>http://www.example.com</link>
<description>This is a sample feed</description>
<item>
  <g:id>TV_123456</g:id>
  <g:title>Google Chromecast &amp; remote</g:title>
  <title>Not this one</title>
  <description><![CDATA[<p>Chromecast plugs into the <b>HDMI</b> port.</p><ul><li>Small<li>Quick</ul>]]></description>
  <link>http://www.example.com/electronics/tv/22LB4510.html</link>
  <g:image_link>http://images.example.com/TV_123456.png?size=780x780</g:image_link>
  <g:additional_image_link>http://images.example.com/back.png</g:additional_image_link>
  <g:additional_image_link>http://images.example.com/side.png</g:additional_image_link>
  <g:condition>used</g:condition>
  <g:availability>in_stock</g:availability>
  <g:price>159.00 USD</g:price>
  <g:shipping><g:country>US</g:country><g:service>Standard</g:service><g:price>14.95 USD</g:price></g:shipping>
  <g:shipping><g:country>CA</g:country><g:price>20 USD</g:price></g:shipping>
  <g:gtin>71919219405200</g:gtin>
  <g:google_product_category>Electronics &gt; Video &gt; Televisions</g:google_product_category>
  <g:product_type>Consumer Electronics &gt; TVs</g:product_type>
  <g:product_type>Sale</g:product_type>
  <g:custom_label_0></g:custom_label_0>
</item>
<item><g:id>2</g:id><title>Escaped</title><description>&lt;p&gt;It&amp;#39;s fine&lt;/p&gt;</description>
  <g:image_link>two.png</g:image_link></item>
<item><title>No id</title><g:image_link>two.png</g:image_link></item>
<item><g:id>4</g:id><title>No picture</title></item>
</channel>
</rss>"""

ATOM = f"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" {NAMESPACE}>
<title>Example</title><link rel="self" href="http://www.example.com"/><updated>20011-07-11T12:00:00Z</updated>
<entry>
  <g:id>A1</g:id><title>Fleece</title><summary>Unused here</summary>
  <g:description>Soft <![CDATA[<i>very</i>]]> soft</g:description>
  <link href="http://www.example.com/fleece"/>
  <g:image_link>http://images.example.com/fleece.jpg</g:image_link>
  <g:price>25.00 EUR</g:price><g:availability>out of stock</g:availability><g:color>Grün/Weiß</g:color>
</entry>
</feed>"""


def test_an_rss_feed_has_lists_dicts_and_text_without_html(tmp_path):
    folder = write_pictures(tmp_path / "p", "TV_123456.png", "back.png", "side.png", "two.png")
    pairs = read_pairs(write_text(tmp_path / "feed.xml", RSS), images=folder)
    assert pairs.layout == "google merchant"
    assert [(pair.id, pair.image.name) for pair in pairs] == [
        ("TV_123456", "TV_123456.png"),
        ("TV_123456", "back.png"),
        ("TV_123456", "side.png"),
        ("2", "two.png"),
    ]
    assert pairs[0].captions == ("Google Chromecast & remote", "Chromecast plugs into the HDMI port. Small Quick")
    assert pairs[0].attributes == {
        "link": "http://www.example.com/electronics/tv/22LB4510.html",
        "condition": "used",
        "availability": "in_stock",
        "in_stock": True,
        "price": 159.0,
        "currency": "USD",
        "shipping": [
            {"country": "US", "service": "Standard", "price": "14.95 USD"},
            {"country": "CA", "price": "20 USD"},
        ],
        "gtin": "71919219405200",
        "google_product_category": ["Electronics", "Video", "Televisions"],
        "product_type": ["Consumer Electronics", "TVs", "Sale"],
    }
    assert (pairs[3].captions, pairs[3].attributes) == (("Escaped", "It's fine"), {})
    assert skip_reasons(pairs) == {"feed.xml item 3": "has no id", "feed.xml item 4 (4)": "names no image"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "cp1252"])
def test_an_atom_feed_is_read_in_its_declared_encoding(tmp_path, encoding):
    folder = write_pictures(tmp_path / "p", "fleece.jpg")
    source = write_text(tmp_path / "feed.xml", ATOM.replace("UTF-8", encoding), encoding=encoding)
    pair = read_pairs(source, images=folder)[0]
    assert (pair.id, pair.captions) == ("A1", ("Fleece", "Soft very soft"))
    assert pair.attributes == {
        "link": "http://www.example.com/fleece",
        "summary": "Unused here",
        "price": 25.0,
        "currency": "EUR",
        "availability": "out_of_stock",
        "in_stock": False,
        "color": ["Grün", "Weiß"],
    }


def test_tags_are_mapped_like_columns(tmp_path):
    folder = write_pictures(tmp_path / "p", "fleece.jpg")
    source = write_text(tmp_path / "feed.xml", ATOM)
    pair = read_pairs(source, images=folder, map={"description": "summary", "link": "", "in_stock": ""})[0]
    assert pair.captions == ("Fleece", "Unused here")
    assert pair.attributes.keys() == {"price", "currency", "availability", "color"}


LAUGHS = (
    '<!DOCTYPE rss [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {after} "{f"&{name};" * 10}">' for name, after in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><rss><channel><item><title>&i;</title></item></channel></rss>"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "declares a document type or entities"),
        ('<!DOCTYPE rss SYSTEM "http://x.example/rss.dtd"><rss/>', "declares a document type or entities"),
        (
            '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><channel><item><id>&x;</id></item></channel></rss>',
            "declares a document type or entities",
        ),
        (RSS[:-20], "No item of it is taken"),
        (RSS.replace("</g:price>", "", 1), "mismatched tag: line 26"),
        (RSS.replace("&amp;", "&", 1), "not well-formed"),
        (RSS.replace("remote", "\0", 1), "not well-formed"),
        ("", "no element found"),
        ("<html><body/></html>", "holds <html> where a Google Merchant feed holds <rss> or <feed>."),
        ('<?xml version="1.0" encoding="klingon"?><rss/>', "No item of it is taken"),
        ("<rss/>", "holds no images"),
    ],
)
def test_an_unreadable_feed_is_refused_in_one_line(tmp_path, text, said):
    message = read_error(write_text(tmp_path / "feed.xml", text))
    assert said in message
    assert "feed.xml" in message
    assert "\n" not in message


def test_bytes_that_are_not_xml_are_refused(tmp_path):
    for data in (b"\xff\xfe\x00", RSS.encode("cp1252").replace(b"fine", b"f\xefne"), gzip.compress(RSS.encode())):
        (tmp_path / "feed.xml").write_bytes(data)
        assert "feed.xml is not complete XML" in read_error(tmp_path / "feed.xml")


def test_deep_nesting_and_long_texts_are_skipped_or_refused(tmp_path):
    deep = "<g:x>" * 50_000 + "</g:x>" * 50_000
    long = "y" * (2**24 + 1)
    items = (
        f"<item><g:id>2</g:id><g:title>{long}</g:title></item>"
        f"<item><g:id>3</g:id><g:image_link>a.jpg</g:image_link>{deep[:300]}{deep[-360:]}</item>"
    )
    write_pictures(tmp_path, "a.jpg")
    pairs = read_pairs(write_text(tmp_path / "feed.xml", f"<rss {NAMESPACE}><channel>{items}</channel></rss>"))
    assert [pair.id for pair in pairs] == ["3"]
    assert skip_reasons(pairs) == {"feed.xml item 1": "has a text of more than 16,777,216 characters"}
    bomb = write_text(tmp_path / "feed.xml", f"<rss {NAMESPACE}><channel><item>{deep}</item></channel></rss>")
    assert "more than 100 tags inside each other" in read_error(bomb)
