"""Bodies of requests and responses, strict and bounded, and the OpenAPI document."""

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import MISSING
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self, TypeAlias, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model, model_validator

from retrieval.catalog.search.request import Boost, SearchRequest
from retrieval.settings import settings_of

_MAX_TEXT = 10_000
_MAX_ID = 1_000
_MAX_DIMENSION = 8192
_MAX_IMAGES = 50
_MAX_CAPTIONS = 200


class StrictModel(BaseModel):
    """Refuses unknown fields, and converts none."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _decode_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("an image is a text in base64")  # noqa: TRY004 - pydantic reports ValueErrors
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is not base64") from None


Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=_MAX_ID, pattern=r"\S")]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]
Base64: TypeAlias = Annotated[
    bytes, BeforeValidator(_decode_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
Vector: TypeAlias = Annotated[list[float], Field(min_length=1, max_length=_MAX_DIMENSION)]
Weight: TypeAlias = Annotated[float, Field(gt=0, le=1e6)]
Key: TypeAlias = Annotated[str, Field(min_length=1, max_length=_MAX_ID)]
Range: TypeAlias = Annotated[list[float | str | None], Field(min_length=2, max_length=2)]
Ranges: TypeAlias = Annotated[list[Range], Field(min_length=1, max_length=100)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1000)]


def _derive_model(name: str, source: type, *, types: Mapping[str, Any], doc: str) -> type[BaseModel]:
    """Return the model of a JSON object with the settings of a dataclass as fields; null stands for a default.

    `types` are those that differ in JSON, or that a service limits more.
    """
    hints = get_type_hints(source)
    derived: dict[str, Any] = {}
    for setting in settings_of(source).values():
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        low, high = (bound if math.isfinite(bound) else None for bound in (setting.low, setting.high))
        kind = types.get(setting.name, Annotated[hints[setting.name], Field(ge=low, le=high)])
        nullable = default is None or (setting.name not in types and default is not MISSING)
        field = Field(... if default is MISSING else default, description=f"{setting.help} {setting.details}".strip())
        derived[setting.name] = (kind | None if nullable else kind, field)
    return create_model(name, __base__=StrictModel, __doc__=doc, **derived)


BoostBody: Any = _derive_model(
    "BoostBody", Boost, types={"attribute": Key}, doc="A factor of the score that an attribute gives."
)
SearchBody = _derive_model(
    "SearchBody",
    SearchRequest,
    types={
        "text": Text,
        "image": Base64,
        "like": Id,
        "minus": Text,
        "vector": Vector,
        "weights": dict[Literal["text", "image", "like", "minus", "vector", "words"], Weight],
        "k": Annotated[int, Field(ge=1, le=1000)],
        "offset": Annotated[int, Field(ge=0, le=100_000)],
        "where": dict[str, Any],
        "sort": Annotated[list[Key], Field(max_length=8)],
        "group": Key,
        "facets": Annotated[list[Key], Field(max_length=50)]
        | Annotated[dict[Key, Count | Ranges], Field(max_length=50)],
        "boosts": Annotated[list[BoostBody], Field(max_length=8)],
    },
    doc="A search: parts to look for, which items may be found, and how the answer is arranged.",
)
SearchBody.model_config["json_schema_extra"] = {
    "examples": [
        {"text": "a red dress", "where": {"price": {"$lt": 60}}, "facets": ["color"], "k": 20},
        {"like": "shoe-17", "text": "in blue", "minus": "heels", "weights": {"text": 0.5}},
    ]
}


class ImageBody(StrictModel):
    """An image as its bytes, its vector, or both; never as a path or URL."""

    data: Base64 | None = Field(None, description="JPEG, PNG, GIF, WebP, AVIF, TIFF, BMP or PPM, in base64.")
    vector: Vector | None = None

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.data is None and self.vector is None:
            raise ValueError("an image has data, or a vector")
        return self


Images: TypeAlias = Annotated[list[ImageBody], Field(min_length=1, max_length=_MAX_IMAGES)]
Captions: TypeAlias = Annotated[list[Text], Field(max_length=_MAX_CAPTIONS)]
Vectors: TypeAlias = Annotated[list[Vector], Field(max_length=_MAX_CAPTIONS)]


class ItemBody(StrictModel):
    """A whole item; PUT replaces the one of that id."""

    id: Id | None = Field(None, description="With PUT, the id in the path; it may be omitted.")
    captions: Captions = []
    attributes: dict[str, Any] = {}
    images: Images
    caption_vectors: Vectors | None = Field(None, description="One for each caption, if they are computed already.")

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
    def _check_parts(self) -> Self:
        for part in ("data", "vector"):
            if len({getattr(image, part) is None for image in self.images}) > 1:
                raise ValueError(f"either all images of an item have {part}, or none")
        if self.caption_vectors is not None and len(self.captions) != len(self.caption_vectors):
            raise ValueError(f"{len(self.captions)} captions have {len(self.caption_vectors)} caption_vectors")
        return self


class DataBody(StrictModel):
    """An image as its bytes; never as a path or URL."""

    data: Base64


class PatchBody(StrictModel):
    """A change of an item: attributes are merged (RFC 7396: null removes), lists are replaced."""

    captions: Captions = []
    attributes: dict[str, Any] = {}
    images: Annotated[list[DataBody], Field(min_length=1, max_length=_MAX_IMAGES)] = []

    model_config = ConfigDict(json_schema_extra={"examples": [{"attributes": {"price": 39.9, "sale": True}}]})


class ItemPatch(PatchBody):
    """A change of an item, with its id."""

    id: Id


class ChangeBody(StrictModel):
    """One line of a bulk request: exactly one of the three."""

    put: ItemBody | None = None
    patch: ItemPatch | None = None
    delete: Id | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if len(self.model_fields_set) != 1 or all(one is None for one in (self.put, self.patch, self.delete)):
            raise ValueError("a line is one of put, patch and delete")
        if self.put is not None and self.put.id is None:
            raise ValueError("put needs an id")
        return self


class HitResponse(BaseModel):
    """An image, a caption or an item."""

    rank: int
    score: float
    id: str
    image: str | None = Field(description="Path of the image.")
    thumbnail: str | None
    caption: str | None
    attributes: dict[str, Any]
    ranks: dict[str, int | None] | None = Field(None, description="Rank in each part of a hybrid search.")
    variants: int | None = Field(None, description="Hits in the group, including this one.")


class SearchResponse(BaseModel):
    """Hits, best first, and the total and facets of everything that matches."""

    hits: list[HitResponse]
    total: int
    facets: dict[str, Any]
    seconds: dict[str, float]


class ImageLinks(BaseModel):
    """Paths of an image and its thumbnail; null where only the vector is stored."""

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
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class ChangeResponse(BaseModel):
    """The result of a change; `line` is its number in a bulk request."""

    id: str | None
    status: int
    error: str | None = None
    line: int | None = None


class ErrorResponse(BaseModel):
    """What is wrong, and what to do."""

    error: str


_SCHEMA_REF = "#/components/schemas/{model}"
_DESCRIPTIONS = {
    401: "The key is missing or unknown.",
    403: "The key lacks write scope, or the service is read-only.",
    409: "Another process writes, if there is a Retry-After; else the catalog lacks its encoder.",
    503: "Too many requests are waiting, or the service is not ready.",
    504: "The request took too long.",
    507: "The disk is full.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for these statuses."""
    bodies = {status: {} if status == 304 else {"model": ErrorResponse} for status in statuses}  # noqa: PLR2004
    return {
        status: {"description": _DESCRIPTIONS.get(status, HTTPStatus(status).phrase), **bodies[status]}
        for status in statuses
    }


def request_body(content: Mapping[str, type[BaseModel] | dict[str, Any]]) -> dict[str, Any]:
    """Return the OpenAPI description of a body that the route parses itself, by media type."""
    schemas = {
        media_type: {"schema": one if isinstance(one, dict) else {"$ref": _SCHEMA_REF.format(model=one.__name__)}}
        for media_type, one in content.items()
    }
    return {"requestBody": {"required": True, "content": schemas}}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's OpenAPI document with the bodies that routes parse themselves, built once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (SearchBody, ItemBody, PatchBody, ChangeBody):
            schema = model.model_json_schema(ref_template=_SCHEMA_REF)
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        app.openapi_schema = document
    return app.openapi_schema
