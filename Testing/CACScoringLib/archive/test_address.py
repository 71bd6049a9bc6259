from contextlib import nullcontext

import pytest

from CACScoringLib.archive.address import Access, Address, parse_address
from CACScoringLib.core.errors import OutputError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://pacs.org/dicom-web/", Address("dicomweb", "pacs.org", 443, True, "", "/dicom-web")),
        ("http://localhost:8042/dicom-web", Address("dicomweb", "localhost", 8042, False, "", "/dicom-web")),
        ("https://[::1]:8443", Address("dicomweb", "::1", 8443, True)),
        ("dimse://MY PACS@10.0.0.1:104", Address("dimse", "10.0.0.1", 104, False, "MY PACS")),
        ("dimses://PACS@pacs.org:2762", Address("dimse", "pacs.org", 2762, True, "PACS")),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://pacs.org", "https://", "dimse://pacs.org:104", "dimse://PACS@pacs.org", "https://a:b/c"),
        *("dimse://SEVENTEEN_LETTERS@pacs.org:104", "dimse://P\\Q@pacs.org:104", "https://pacs.org/?q=1"),
    ],
)
def test_invalid_addresses_are_refused(text):
    with pytest.raises(OutputError, match="not the address of an archive"):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["https://me:secret@pacs.org", "https://me@pacs.org", "dimse://PACS:secret@pacs.org:104"]
)
def test_a_password_in_the_address_is_refused_and_not_repeated(text):
    with pytest.raises(OutputError, match="everybody") as error:
        parse_address(text)
    assert "secret" not in str(error.value)


class TestTokens:
    def test_a_token_file_goes_first_and_is_read_anew(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CAC_ARCHIVE_TOKEN", "other")
        access = Access(tmp_path / "token")
        access.token_file.write_text("first\n", encoding="utf-8")
        assert access.token() == "first"
        access.token_file.write_text("second\n", encoding="utf-8")
        assert access.token() == "second"

    @pytest.mark.parametrize("content", ["", "two words", "a\r\nX-Injected: b"])
    def test_a_broken_file_is_refused_without_its_content(self, tmp_path, content):
        (tmp_path / "token").write_text(content, encoding="utf-8")
        with pytest.raises(OutputError) as error:
            Access(tmp_path / "token").token()
        assert not content or content not in str(error.value)

    @pytest.mark.parametrize(
        ("address", "fits"),
        [("http://pacs.org/dicom-web", False), ("https://pacs.org/dicom-web", True), ("http://127.0.0.1:80", True)],
    )
    def test_a_token_is_not_sent_without_encryption(self, monkeypatch, address, fits):
        monkeypatch.setenv("CAC_ARCHIVE_TOKEN", "abc")
        with nullcontext() if fits else pytest.raises(OutputError, match="https"):
            Access().check(parse_address(address))

    def test_dimse_has_none(self, tmp_path):
        with pytest.raises(OutputError, match="DICOMweb"):
            Access(tmp_path / "token").check(parse_address("dimse://PACS@pacs.org:104"))


def test_certificates_must_exist(tmp_path):
    place = parse_address("https://pacs.org")
    (tmp_path / "bad.pem").write_text("no certificate", encoding="utf-8")
    for action, message in (
        (lambda: Access(authorities=tmp_path / "none.pem").check(place), r"none\.pem"),
        (lambda: Access(key=tmp_path / "bad.pem").check(place), "certificate"),
        (lambda: Access(authorities=tmp_path / "bad.pem").tls(), "PEM"),
    ):
        with pytest.raises(OutputError, match=message):
            action()
