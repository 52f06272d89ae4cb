"""The project's own index kinds and encoders keep the contracts of `retrieval.testing`, which notice breaches."""

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from oracles import (
    SMALL,
    one_thread,  # noqa: F401 - pytest uses it
)
from tiny_models import write_tiny_model

from index.errors import StoredIndexError
from index.kinds import KINDS
from index.kinds.faiss_index import FaissCandidates, FaissKind
from index.kinds.hnsw import Hnsw
from retrieval.encoder import load_encoder
from retrieval.testing.encoders import check_encoder
from retrieval.testing.kinds import check_index_kind


@pytest.mark.parametrize("kind", KINDS)
def test_index_kind_keeps_the_contract(kind):
    check_index_kind(SMALL[kind])


@pytest.mark.faiss
def test_contract_notices_a_kind_that_misses_neighbors(monkeypatch):
    candidates = FaissCandidates.candidates
    monkeypatch.setattr(FaissCandidates, "candidates", lambda self, *args: candidates(self, *args)[:, ::2])
    with pytest.raises(AssertionError):
        check_index_kind(SMALL["hnsw"])


@pytest.mark.faiss
def test_contract_notices_a_wrong_estimate_of_bytes(monkeypatch):
    monkeypatch.setattr(Hnsw, "estimate_bytes", lambda *_, **__: 50_000)
    with pytest.raises(AssertionError, match=r"rtol=0\.1"):
        check_index_kind(SMALL["hnsw"])


@pytest.mark.faiss
def test_contract_notices_a_load_that_reads_bytes_behind_the_engine_s(monkeypatch):
    def load(self, path, slots, **options):
        if b"footer" in path.read_bytes():
            raise StoredIndexError("foreign bytes")
        return FaissKind.load(self, path, slots, **options)

    monkeypatch.setattr(Hnsw, "load", load)
    with pytest.raises(StoredIndexError, match="foreign bytes"):
        check_index_kind(SMALL["hnsw"])


def test_contract_notices_an_encoder_that_leaves_its_device_open():
    class AutoEncoder(FakeEncoder):
        device = property(lambda _: "auto", lambda *_: None)

    with pytest.raises(AssertionError):
        check_encoder(AutoEncoder, by_name=False)


def test_encoders_keep_the_contract(tmp_path):
    write_tiny_model(tmp_path)
    check_encoder(lambda: load_encoder(tmp_path, device="cpu"))
    check_encoder(FakeEncoder, by_name=False)


def test_contract_notices_an_encoder_whose_rows_have_another_length():
    class LongEncoder(FakeEncoder):
        def encode_texts(self, texts):
            """Return rows of length 2."""
            return np.float32(2) * super().encode_texts(texts)

    with pytest.raises(AssertionError):
        check_encoder(LongEncoder, by_name=False)
