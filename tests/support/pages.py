"""PDFs of many pages, and the text of each."""

import io
import random
import zlib

import pikepdf
from pikepdf import Array, Dictionary, Name
from pypdfium2 import PdfDocument


def shared(pages: int, *, size: int = 3000) -> bytes:
    """A PDF whose pages say `Shared 1` and so on, and share one dictionary of resources: an image for each of them."""
    images, noise = Dictionary(), random.Random(1).randbytes  # noqa: S311 - no secret
    with pikepdf.new() as pdf:
        for number in range(1, pages + 1):
            image = pdf.make_stream(zlib.compress(noise(size)))
            image.Type, image.Subtype, image.Filter = Name.XObject, Name.Image, Name.FlateDecode
            image.Width, image.Height, image.BitsPerComponent, image.ColorSpace = size, 1, 8, Name.DeviceGray
            images[f"/Im{number}"] = image
        font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
        resources = pdf.make_indirect(Dictionary(XObject=images, Font=Dictionary(F1=font)))
        for number in range(1, pages + 1):
            said = f"BT /F1 24 Tf 72 720 Td (Shared {number}) Tj ET /Im{number} Do"
            page = Dictionary(Type=Name.Page, MediaBox=[0, 0, 595, 842], Resources=resources)
            page.Contents = pdf.make_stream(said.encode())
            pdf.pages.append(pikepdf.Page(pdf.make_indirect(page)))
        return _saved(pdf)


def signed(content: bytes) -> bytes:
    """The PDF with a form: a text field on each page, and on the first a signature."""
    with pikepdf.open(io.BytesIO(content)) as pdf:
        fields = []
        for number, page in enumerate(pdf.pages):
            field = Dictionary(
                Type=Name.Annot, Subtype=Name.Widget, FT=Name.Tx, T=f"f{number}", V="x", Rect=[0, 0, 9, 9]
            )
            fields.append(pdf.make_indirect(field))
            page.Annots = Array([fields[-1]])
        value = Dictionary(Type=Name.Sig, Filter=Name("/Adobe.PPKLite"), ByteRange=[0, 1, 2, 3], Contents=b"signed")
        field = Dictionary(Type=Name.Annot, Subtype=Name.Widget, FT=Name.Sig, T="s", V=value, Rect=[0, 0, 9, 9])
        fields.append(pdf.make_indirect(field))
        pdf.pages[0].Annots.append(fields[-1])
        pdf.Root.AcroForm = pdf.make_indirect(Dictionary(Fields=Array(fields), SigFlags=3))
        return _saved(pdf)


def encrypted(content: bytes, *, user: str = "") -> bytes:
    """The PDF with a password of its owner, and perhaps one that opens it."""
    with pikepdf.open(io.BytesIO(content)) as pdf:
        return _saved(pdf, encryption=pikepdf.Encryption(owner="owner", user=user))


def texts(content: bytes) -> list[str]:
    """The text of each page."""
    pdf = PdfDocument(content)
    return [page.get_textpage().get_text_range() for page in pdf]


def _saved(pdf: pikepdf.Pdf, **options: object) -> bytes:
    file = io.BytesIO()
    pdf.save(file, object_stream_mode=pikepdf.ObjectStreamMode.generate, **options)
    return file.getvalue()
