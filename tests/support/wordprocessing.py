"""A DOCX with something of everything that Markdown can say, and the pieces that such documents are made of."""

from tests.support.factories import MAIN, docx_with, relationships

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
NAMESPACES = f'xmlns:w="{W}" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
STYLES = (
    '<w:style w:styleId="Title"><w:name w:val="Title"/></w:style>'
    '<w:style w:styleId="H1"><w:name w:val="heading 1"/><w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>'
    '<w:style w:styleId="H2"><w:name w:val="heading 2"/><w:basedOn w:val="H1"/></w:style>'
    '<w:style w:styleId="Own"><w:name w:val="Own"/><w:basedOn w:val="H2"/></w:style>'
    '<w:style w:styleId="Contents"><w:basedOn w:val="H1"/><w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>'
    '<w:style w:styleId="Strong"><w:rPr><w:b/></w:rPr></w:style>'
)
LEVELS = (("decimal", "%1."), ("lowerLetter", "%2)"), ("bullet", "\uf0b7"))


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def run(text: str, style: str = "") -> str:
    """A run; of `style`, b is bold, i italic, and more is the id of a style."""
    properties = {"": "", "b": "<w:b/>", "i": "<w:i/>", "bi": "<w:b/><w:i/>"}.get(style, f'<w:rStyle w:val="{style}"/>')
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{escaped(text)}</w:t></w:r>'


def paragraph(*runs: str, style: str = "", properties: str = "") -> str:
    """A paragraph of runs; what is no element is the text of one."""
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    content = "".join(each if each.startswith("<w:") else run(each) for each in runs)
    return f"<w:p><w:pPr>{named}{properties}</w:pPr>{content}</w:p>"


def item(text: str, level: int = 0, number: int = 1) -> str:
    return paragraph(text, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def cell(*content: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{''.join(content) or '<w:p/>'}</w:tc>"


def _row(cells: tuple[str, ...]) -> str:
    return f"<w:tr>{''.join(cells)}</w:tr>"


def table(*rows: tuple[str, ...]) -> str:
    return f"<w:tbl>{''.join(map(_row, rows))}</w:tbl>"


def link(number: int, *runs: str) -> str:
    return f"<w:hyperlink r:id='rId{number}'>{''.join(runs)}</w:hyperlink>"


def reference(kind: str, number: int) -> str:
    return f'<w:r><w:{kind}Reference w:id="{number}"/></w:r>'


def notes(kind: str, *texts: str) -> bytes:
    """The part of foot- or endnotes, which are numbered from 1; each paragraph of one is a line of its text."""
    each = (
        f"<w:{kind} w:id='{number}'>{''.join(map(paragraph, text.splitlines()))}</w:{kind}>"
        for number, text in enumerate(texts, 1)
    )
    return f"<w:{kind}s {NAMESPACES}>{''.join(each)}</w:{kind}s>".encode()


def document(body: str, footnotes: bytes = b"", endnotes: bytes = b"") -> bytes:
    """A DOCX with styles, two lists, links to `https://example.com/a_(b)` and a script, and these notes."""
    levels = "".join(
        f'<w:lvl w:ilvl="{n}"><w:numFmt w:val="{kind}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for n, (kind, text) in enumerate(LEVELS)
    )
    bullet = '<w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/><w:lvlText w:val="-"/></w:lvl>'
    numbering = (
        f'<w:numbering {NAMESPACES}><w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        f'<w:abstractNum w:abstractNumId="1">{bullet}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
        '<w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num></w:numbering>'
    )
    related = relationships(
        ("hyperlink", "https://example.com/a_(b)", "External"),
        ("hyperlink", "javascript:alert(1)", "External"),
        ("styles", "styles.xml"),
        ("numbering", "numbering.xml"),
        ("footnotes", "footnotes.xml"),
        ("endnotes", "endnotes.xml"),
    )
    return docx_with(
        {
            MAIN: f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>".encode(),
            "word/_rels/document.xml.rels": related,
            "word/styles.xml": f"<w:styles {NAMESPACES}>{STYLES}</w:styles>".encode(),
            "word/numbering.xml": numbering.encode(),
            "word/footnotes.xml": footnotes or notes("footnote"),
            "word/endnotes.xml": endnotes or notes("endnote"),
        }
    )


def everything() -> bytes:
    """Something of everything."""
    merged = '<w:gridSpan w:val="2"/>'
    box = f"<w:r><w:pict><w:txbxContent>{paragraph('In a box')}</w:txbxContent></w:pict></w:r>"
    body = (
        paragraph("Annual report #", style="Title"),
        paragraph("Contents", style="Contents"),
        paragraph(run("1. Overview", "b"), style="H1"),
        paragraph(
            "Plain, ", run("bold, ", "b"), run("italic", "i"), ", ", run("both", "bi"), run(" and strong", "Strong")
        ),
        paragraph("Half a ", run("wo", "b"), "rd, and (", run("a sign.", "b"), "glued)"),
        paragraph(
            "See ", link(0, run("the "), run("site", "b")), ", not ", link(1, run("this")), "!", link(0, run("x"))
        ),
        paragraph("A note", reference("footnote", 2), ": and one at the end", reference("endnote", 1)),
        paragraph("Details", style="H2"),
        paragraph("Deeper", style="Own"),
        *(item("one"), item("a thing", 1), item("a point", 2), item("another", 2), item("b thing", 1), item("two")),
        *(item("a bullet", 0, 2), item("# not a heading", 0, 2)),
        paragraph("1. not a list *nor emphasis* _nor_ snake_case `code` <b> [link](x) &amp; | ~~gone~~ \\"),
        paragraph("- not an item", "<w:r><w:br/></w:r>", "# still not a heading"),
        *(paragraph("---"), paragraph("> no quote"), paragraph("===")),
        table(
            (cell(paragraph("Item"), properties=merged), cell(paragraph(run("Price", "b")))),
            (cell(paragraph("a|b"), paragraph("second line")), cell(), cell(paragraph("9.50"))),
            (cell(table((cell(paragraph("inner")), cell(paragraph("table"))))), cell(item("listed", 0, 2))),
        ),
        paragraph("before ", box, " behind"),
    )
    footnotes = notes("footnote", "Never referred to.", "First line.\nSecond | line.")
    return document("".join(body), footnotes, notes("endnote", "At the end."))
