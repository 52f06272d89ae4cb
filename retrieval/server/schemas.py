"""What goes in and what comes out, as OpenAPI says it: strict, bounded, with examples."""

import base64
import binascii
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

_LONGEST_TEXT = 10_000
_LONGEST_ID = 1_000
_MAX_DIMENSION = 8192
_MAX_PICTURES = 50
_MAX_CAPTIONS = 200


class StrictModel(BaseModel):
    """No field is guessed, converted or left over."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("a picture is a text in base64")  # noqa: TRY004 - pydantic reports ValueErrors
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is not base64") from None


Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=_LONGEST_ID, pattern=r"\S")]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)]
Base64: TypeAlias = Annotated[
    bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
Vector: TypeAlias = Annotated[list[float], Field(min_length=1, max_length=_MAX_DIMENSION)]
Weight: TypeAlias = Annotated[float, Field(gt=0, le=1e6)]
Key: TypeAlias = Annotated[str, Field(min_length=1, max_length=_LONGEST_ID)]
Range: TypeAlias = Annotated[list[float | str | None], Field(min_length=2, max_length=2)]
Ranges: TypeAlias = Annotated[list[Range], Field(min_length=1, max_length=100)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1000)]


class BoostBody(StrictModel):
    """A factor of the score that an attribute gives."""

    attribute: Key
    weight: Annotated[float, Field(ge=-1, le=1)]
    low: float | None = Field(None, description="Value that adds nothing; the least in the catalog.")
    high: float | None = Field(None, description="Value that adds all the weight; the greatest in the catalog.")


class SearchBody(StrictModel):
    """A search: parts to look for, what may be found, and how the answer is to be arranged."""

    text: Text | None = Field(None, description="Words.")
    image: Base64 | None = Field(None, description="A picture, in base64.")
    like: Id | None = Field(None, description="Id of an item.")
    minus: Text | None = Field(None, description="Words to search away from.")
    vector: Vector | None = Field(None, description="A row of the encoder's space.")
    weights: dict[Literal["text", "image", "like", "minus", "vector", "words"], Weight] | None = Field(
        None, description='Of the parts, 1 where not given; "words" in the mode "hybrid".'
    )
    target: Literal["images", "captions", "items"] | None = None
    mode: Literal["vectors", "words", "hybrid"] | None = Field(
        None, description="How a text is searched; hybrid where it is not a part of a mix with a picture or an item."
    )
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    offset: Annotated[int, Field(ge=0, le=100_000)] = 0
    where: dict[str, Any] | None = Field(
        None, description='Filter: {"price": {"$lt": 60}, "color": "gray", "title": {"$contains": "red"}}.'
    )
    sort: Annotated[list[Key], Field(max_length=8)] = Field([], description='Attributes, "-price" from the highest.')
    group: Key | None = Field(None, description="Attribute: of each value, only the best hit.")
    facets: Annotated[list[Key], Field(max_length=50)] | Annotated[dict[Key, Count | Ranges], Field(max_length=50)] = []
    floor: float | None = Field(None, description="Least cosine of what is found by vector.")
    boosts: Annotated[list[BoostBody], Field(max_length=8)] = []
    fusion: Literal["best", "mean"] | None = Field(None, description='Of several pictures; for the target "items".')
    caption_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    effort: Annotated[float, Field(ge=0, le=1)] | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a red dress", "where": {"price": {"$lt": 60}}, "facets": ["color"], "k": 20},
                {"like": "shoe-17", "text": "in blue", "minus": "heels", "weights": {"text": 0.5}},
            ]
        }
    )


class ImageBody(StrictModel):
    """A picture's bytes, or its vector, or both; never where it is."""

    data: Base64 | None = Field(None, description="JPEG, PNG, GIF, WebP, AVIF, TIFF, BMP or PPM, in base64.")
    vector: Vector | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.data is None and self.vector is None:
            raise ValueError("an image has data, or a vector")
        return self


Pictures: TypeAlias = Annotated[list[ImageBody], Field(min_length=1, max_length=_MAX_PICTURES)]
Captions: TypeAlias = Annotated[list[Text], Field(max_length=_MAX_CAPTIONS)]
Vectors: TypeAlias = Annotated[list[Vector], Field(max_length=_MAX_CAPTIONS)]


class ItemBody(StrictModel):
    """A whole item; with PUT it takes the place of the one that was there."""

    id: Id | None = Field(None, description="With PUT, that of the address; it may be left out there.")
    captions: Captions = []
    attributes: dict[str, Any] = {}
    images: Pictures
    caption_vectors: Vectors | None = Field(None, description="One for each caption, where they are known already.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "shoe-17",
                    "captions": ["a gray running shoe"],
                    "attributes": {"color": "gray", "price": 49.9},
                    "images": [{"data": "UklGRhoAAABXRUJQ..."}],
                }
            ]
        }
    )

    @model_validator(mode="after")
    def _alike(self) -> Self:
        for part in ("data", "vector"):
            if len({getattr(picture, part) is None for picture in self.images}) > 1:
                raise ValueError(f"either all images of an item have {part}, or none")
        if self.caption_vectors is not None and len(self.captions) != len(self.caption_vectors):
            raise ValueError(f"{len(self.captions)} captions have {len(self.caption_vectors)} caption_vectors")
        return self


class DataBody(StrictModel):
    """A picture's bytes; never where it is."""

    data: Base64


class PatchBody(StrictModel):
    """What changes of an item: attributes are merged (RFC 7396: null removes), lists replaced."""

    captions: Captions = []
    attributes: dict[str, Any] = {}
    images: Annotated[list[DataBody], Field(min_length=1, max_length=_MAX_PICTURES)] = []

    model_config = ConfigDict(json_schema_extra={"examples": [{"attributes": {"price": 39.9, "sale": True}}]})


class ItemPatch(PatchBody):
    """What changes of which item."""

    id: Id


class ChangeBody(StrictModel):
    """One line of a bulk request: one of the three."""

    put: ItemBody | None = None
    patch: ItemPatch | None = None
    delete: Id | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1 or all(one is None for one in (self.put, self.patch, self.delete)):
            raise ValueError("a line is one of put, patch and delete")
        if self.put is not None and self.put.id is None:
            raise ValueError("put needs an id")
        return self

    @property
    def id(self) -> str:
        """The item's."""
        item = self.put or self.patch
        return str(self.delete if item is None else item.id)


class HitResponse(BaseModel):
    """An image, a caption or an item that was found."""

    rank: int
    score: float
    id: str
    image: str | None = Field(description="Address of the picture.")
    thumbnail: str | None
    caption: str | None
    attributes: dict[str, Any]
    ranks: dict[str, int | None] | None = Field(None, description="Of each part of a hybrid search.")
    variants: int | None = Field(None, description="Hits of the group, this one included.")


class SearchResponse(BaseModel):
    """Hits, best first, and what there is to say of all that passes the filter."""

    hits: list[HitResponse]
    total: int
    facets: dict[str, Any]
    seconds: dict[str, float]


class ImageLinks(BaseModel):
    """A picture of an item; without addresses where only its vector is known."""

    image: str | None
    thumbnail: str | None


class ItemResponse(BaseModel):
    """An item."""

    id: str
    captions: list[str]
    attributes: dict[str, Any]
    images: list[ImageLinks]


class ItemPage(BaseModel):
    """A page of items, in the order of their ids."""

    items: list[ItemResponse]
    next: str | None = Field(description="Id to ask for the next page with; null on the last one.")


class ChangeResponse(BaseModel):
    """What became of a change; of a line of a bulk request, also which."""

    id: str | None
    status: int
    error: str | None = None
    line: int | None = None


class ErrorResponse(BaseModel):
    """What happened, and what to do next."""

    error: str
