"""What files say of their making: signed manifests, tags and text chunks, of made-up files."""

import datetime
import io
import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from dfl.data.metadata import COLUMNS, metadata
from dfl.errors import UserError
from dfl.evaluation.predictions import certificates


def test_what_generators_write_into_png_files_is_named() -> None:
    pytest.importorskip("c2pa")
    for chunk, maker in (("parameters", "Stable Diffusion web UI"), ("workflow", "ComfyUI"), ("Dream", "InvokeAI")):
        info = PngImagePlugin.PngInfo()
        info.add_text(chunk, '{"a": 1}')
        Image.new("RGB", (8, 8)).save("a.png", pnginfo=info)
        assert metadata("a.png")["generator_tags"] == f"{chunk} ({maker})"
    for text, tags in (('{"3": {"class_type": "KSampler"}}', "prompt (ComfyUI)"), ("a cat", "")):
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", text)
        Image.new("RGB", (8, 8)).save("a.png", pnginfo=info)
        assert metadata("a.png")["generator_tags"] == tags
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x Iptc4xmpExt:DigitalSourceType='.../trainedAlgorithmicMedia'/>")
    info.add_text("Software", "NovelAI\x1b[2J")
    Image.new("RGB", (8, 8)).save("a.png", pnginfo=info)
    found = metadata("a.png")
    assert found["generator_tags"] == "trainedAlgorithmicMedia; Software names NovelAI"
    assert found["software"] == "NovelAI\\x1b[2J"  # no letter moves the cursor


def test_tags_of_a_jpeg_are_read_and_a_camera_is_no_generator() -> None:
    pytest.importorskip("c2pa")
    exif = Image.Exif()
    exif[0x131] = "Adobe Firefly 2"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "cat Steps: 20, Sampler: Euler".encode("utf-16-le")
    Image.new("RGB", (8, 8)).save("a.jpg", exif=exif)
    found = metadata("a.jpg")
    assert found["software"] == "Adobe Firefly 2"
    assert found["generator_tags"] == "Software names Firefly; comment (Stable Diffusion web UI)"
    exif = Image.Exif()
    exif[0x131] = "GIMP 2.10"
    Image.new("RGB", (8, 8)).save("b.jpg", exif=exif)
    assert metadata("b.jpg") == {"c2pa": "none", "c2pa_says": "", "software": "GIMP 2.10", "generator_tags": ""}


def test_artist_and_make_name_generators_but_not_people() -> None:
    for tag, text, tags in (
        (0x13B, "DALL-E 3", "Artist names DALL-E"),
        (0x10F, "Stable Diffusion", "Make names Stable Diffusion"),
        (0x13B, "Gemini Studio", ""),
        (0x10F, "Canon", ""),
    ):
        exif = Image.Exif()
        exif[tag] = text
        Image.new("RGB", (8, 8)).save("a.jpg", exif=exif)
        assert metadata("a.jpg")["generator_tags"] == tags


def test_without_the_package_of_manifests_tags_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfl.data.metadata.HAS_C2PA", False)
    exif = Image.Exif()
    exif[0x131] = "NovelAI"
    Image.new("RGB", (8, 8)).save("a.jpg", exif=exif)
    found = metadata("a.jpg")
    assert (found["c2pa"], found["generator_tags"]) == ("not looked for: no c2pa-python", "Software names NovelAI")
    assert certificates(True, None) == ""
    with pytest.raises(UserError, match="--trust checks signed manifests with the package c2pa-python"):
        certificates(True, "a.pem")


def test_a_format_without_a_place_for_a_manifest_has_none() -> None:
    pytest.importorskip("c2pa")
    Image.new("RGB", (8, 8)).save("a.bmp")
    assert metadata("a.bmp")["c2pa"] == "none"


def test_what_cannot_be_read_says_nothing() -> None:
    pytest.importorskip("c2pa")
    Path("torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("torn.png", "missing.png", "clip.mp4#frame=3", ""):
        assert metadata(name) == dict.fromkeys(COLUMNS, "")


def test_a_manifest_is_believed_only_if_its_signer_is_on_the_list_and_the_file_is_whole() -> None:
    trusted = signed(Path("a.jpg"))
    says = "Some Generator; trainedAlgorithmicMedia; signed by somebody"
    assert metadata("a.jpg")["c2pa"] == "untrusted"
    assert metadata("a.jpg", trusted) | {"c2pa_says": ""} == dict.fromkeys(COLUMNS, "") | {"c2pa": "verified"}
    assert metadata("a.jpg")["c2pa_says"] == says
    content = bytearray(Path("a.jpg").read_bytes())
    content[-20] ^= 0xFF
    Path("b.jpg").write_bytes(content)
    assert metadata("b.jpg", trusted)["c2pa"] == "broken"


def signed(path: Path) -> str:
    """Write a signed JPEG; return the certificate of who vouches for its signer, PEM."""
    c2pa, x509 = pytest.importorskip("c2pa"), pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey) -> bytes:
        subject, signer = (
            x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, one)]) for one in (name, issuer)
        )
        is_root, no = name == issuer, False
        usage = x509.KeyUsage(True, no, no, no, no, is_root, is_root, no, no)
        made = x509.CertificateBuilder(signer, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(datetime.datetime(2024, 1, 1)).not_valid_after(datetime.datetime(2049, 1, 1))
        made = made.add_extension(x509.BasicConstraints(is_root, None), True).add_extension(usage, True)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), False)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        if not is_root:
            made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return made.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    anchor = certificate("root", root, "root", root)
    chain = certificate("somebody", own, "root", root) + anchor
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, own.private_bytes(*plain), None))
    kind = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    action = {"action": "c2pa.created", "digitalSourceType": kind}
    manifest = {
        "claim_generator_info": [{"name": "Some Generator"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    plain_image, whole = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), (10, 20, 30)).save(plain_image, "JPEG")
    plain_image.seek(0)
    unchecked = c2pa.Context(settings=c2pa.Settings.from_dict({"verify": {"verify_after_sign": False}}))
    c2pa.Builder(json.dumps(manifest), unchecked).sign(signer, "image/jpeg", plain_image, whole)
    path.write_bytes(whole.getvalue())
    return anchor.decode()
