"""The words of the sample shop: what its things, colours and patterns are called, and sentences about them."""

from dataclasses import dataclass
from random import Random
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing: its category, a usual price, its other names, what it is for."""

    category: str
    price: float
    other_names: tuple[str, ...]
    uses: tuple[str, ...]


KINDS: Final[dict[str, Kind]] = {
    "mug": Kind("kitchen", 9, ("coffee mug", "coffee cup"), ("for the first sip", "for cocoa and long talks")),
    "T-shirt": Kind("clothing", 19, ("tee", "cotton T-shirt"), ("for warm afternoons", "for long bike tours")),
    "dress": Kind("clothing", 49, ("summer dress", "sleeveless dress"), ("for garden parties", "for a picnic")),
    "hat": Kind("accessories", 25, ("brimmed hat", "sun hat"), ("for walks in the sun", "for the beach")),
    "boot": Kind("shoes", 59, ("rubber boot", "rain boot"), ("for puddles and mud", "for autumn walks")),
    "handbag": Kind("accessories", 65, ("purse", "ladies' bag"), ("for an evening in town", "for keys and letters")),
    "chair": Kind("furniture", 79, ("dining chair", "padded chair"), ("for the kitchen table", "for long dinners")),
    "lamp": Kind("home", 45, ("table lamp", "bedside lamp"), ("for reading in bed", "for a cosy corner")),
    "clock": Kind("home", 22, ("alarm clock", "bedside clock"), ("for early risers", "for sound sleepers")),
    "bottle": Kind("kitchen", 15, ("water bottle", "drinking bottle"), ("for school", "for a long hike")),
    "umbrella": Kind("accessories", 24, ("rain umbrella", "brolly"), ("for rainy walks", "for sudden showers")),
    "guitar": Kind("leisure", 149, ("acoustic guitar", "six-string guitar"), ("for campfires", "for first chords")),
    "bicycle": Kind("leisure", 289, ("bike", "city bike"), ("for the ride to work", "for trips along the river")),
    "ball": Kind("leisure", 12, ("play ball", "bouncy ball"), ("for the playground", "for the whole team")),
    "kite": Kind("leisure", 18, ("flying kite", "kite with a tail"), ("for windy beaches", "for autumn storms")),
    "tent": Kind("leisure", 129, ("camping tent", "tepee tent"), ("for nights outdoors", "for festivals")),
    "teapot": Kind("kitchen", 32, ("tea pot", "pot for tea"), ("for four cups", "for a rainy afternoon")),
    "vase": Kind("home", 28, ("tall vase", "ceramic vase"), ("for the window sill", "for the hallway")),
    "backpack": Kind("accessories", 55, ("rucksack", "daypack"), ("for hikes and school", "for weekend trips")),
    "sock": Kind("clothing", 6, ("knitted sock", "woolly sock"), ("for cold feet", "for hiking boots")),
    "glove": Kind("clothing", 14, ("winter glove", "five-finger glove"), ("for snowball fights", "for icy handlebars")),
    "scarf": Kind("clothing", 21, ("winter scarf", "fringed scarf"), ("for frosty mornings", "for cold evenings")),
    "watch": Kind("accessories", 89, ("wristwatch", "watch with a strap"), ("for people on time", "for every wrist")),
    "cushion": Kind("home", 17, ("throw pillow", "pillow"), ("for lazy Sundays", "for the reading chair")),
    "table": Kind("furniture", 159, ("dining table", "table with its cloth"), ("for six guests", "for homework")),
    "book": Kind("stationery", 13, ("notebook", "bound book"), ("for thoughts and sketches", "for travel diaries")),
    "candle": Kind("home", 8, ("pillar candle", "wax candle"), ("for quiet evenings", "for the bathtub")),
    "boat": Kind("leisure", 34, ("sailboat", "toy sailing boat"), ("for the pond", "for young captains")),
    "sofa": Kind("furniture", 499, ("couch", "two-seat sofa"), ("for film nights", "for an afternoon nap")),
    "gift box": Kind("stationery", 5, ("present", "wrapped present"), ("for birthdays", "for a surprise")),
}  # fmt: skip

COLOR_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red", "scarlet", "bright red"),
    "orange": ("orange", "tangerine", "warm orange"),
    "yellow": ("yellow", "lemon yellow", "sunny yellow"),
    "green": ("green", "leaf green", "meadow green"),
    "turquoise": ("turquoise", "teal", "aqua"),
    "blue": ("blue", "cobalt", "royal blue"),
    "purple": ("purple", "violet", "plum purple"),
    "pink": ("pink", "rosy pink", "candy pink"),
    "brown": ("brown", "chestnut", "cocoa brown"),
    "black": ("black", "jet black", "deep black"),
    "gray": ("gray", "grey", "slate gray"),
    "white": ("white", "snow white", "pure white"),
}

PATTERN_WORDS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "plain": ("plain", "no pattern", ("without any print", "in one even tone", "unpatterned")),
    "striped": ("striped", "stripes", ("with even stripes", "banded from side to side", "with broad bars")),
    "dotted": ("dotted", "dots", ("with polka dots", "sprinkled with round spots", "dotted all over")),
    "checked": ("checked", "checks", ("chequered all over", "like a chessboard", "with neat checks")),
    "zigzag": ("zigzag", "zigzags", ("with chevrons", "with zigzag lines", "in a zigzag print")),
    "starred": ("starred", "stars", ("with a print of stars", "full of stars", "scattered with stars")),
    "hearts": ("heart-print", "hearts", ("with a print of hearts", "covered in hearts", "full of hearts")),
    "floral": ("floral", "flowers", ("with blossoms all over", "in a flower print", "covered in flowers")),
}

_SIZE_WORDS: Final = {
    "small": ("small", "little", "compact"),
    "medium": ("medium", "mid-sized", "medium-sized"),
    "large": ("large", "big", "generous"),
}
_PLACE_WORDS: Final = {
    "plain": ("on a plain backdrop", "before a single pale color"),
    "room": ("in a room with a bare wall", "between wall and floor"),
    "wood": ("on wooden boards", "on a timber surface"),
    "tiles": ("against tiles", "on a tiled wall"),
    "gradient": ("before a soft gradient", "in fading light"),
}
_SENTENCES: Final = (
    "{A_size} {name} {pattern}, in {shade}, {use}. Shown {place}.",
    "{Shade} {name} {pattern}: {use}. Size {plain_size}, photographed {place}.",
    "{Name} {pattern}, {shade}, {use}. {Size}, seen {place}.",
    "Our {size} {name} in {shade} comes {pattern} and is made {use}; pictured {place}.",
    "{Use}: {a_size} {shade} {name}, {pattern}, {place}.",
    "{Place}, {a_size} {name}. The color is {shade}, the look is {adjective}. {Use}.",
)


def entitle(kind: str, *, color: str, pattern: str, form: int) -> str:
    """A title that names the three facts in their plain words; `form` picks the order of the words."""
    adjective, noun, _ = PATTERN_WORDS[pattern]
    ways = (
        f"{color} {adjective} {kind}",
        f"{adjective} {kind} in {color}",
        f"{color} {kind} with {noun}",
        f"{kind} in {color}, {adjective}",
    )
    return _upper(ways[form % len(ways)])


def describe(kind: str, *, color: str, pattern: str, size: str, background: str, chance: Random) -> str:
    """A sentence or two on the same facts in other words, with the size, the use and the background."""
    adjective, _, phrases = PATTERN_WORDS[pattern]
    words = {
        "name": chance.choice((kind, *KINDS[kind].other_names)),
        "shade": chance.choice(COLOR_WORDS[color]),
        "pattern": chance.choice(phrases),
        "adjective": adjective,
        "plain_size": size,
        "size": chance.choice(_SIZE_WORDS[size]),
        "use": chance.choice(KINDS[kind].uses),
        "place": chance.choice(_PLACE_WORDS[background]),
    }
    words["a_size"] = f"a {words['size']}"
    capitals = {key.capitalize(): _upper(word) for key, word in words.items()}
    return chance.choice(_SENTENCES).format(**words, **capitals)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
