from retrieval.hashing import content_hash


def test_equal_bytes_have_equal_hashes_and_other_bytes_other_ones():
    assert content_hash(b"one") == content_hash(bytes(bytearray(b"one"))) != content_hash(b"other")
    assert content_hash(b"") == "cae66941d9efbd404e4d88758ea67670"  # BLAKE2b of 16 bytes, as coreutils' b2sum -l 128
