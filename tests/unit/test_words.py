"""Processors of words, on texts of known languages."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app import testing
from app.processors.base import Permanent
from app.processors.words.keywords import KeywordsParams, KeywordsProcessor
from app.processors.words.language import LanguageParams, LanguageProcessor
from app.testing.sources import source
from tests.support.factories import pdf

TEXTS = {
    "da": "Kunden skal betale fakturaen inden for fjorten dage. Hvis beløbet ikke er betalt, sender vi en påmindelse, "
    "og der kan komme et gebyr til. Vi har modtaget varerne, men en af dem var i stykker, da den kom frem.",
    "de": "Der Kunde hat die Rechnung innerhalb von vierzehn Tagen zu bezahlen. Wenn der Betrag nicht auf dem Konto "
    "ist, wird eine Mahnung verschickt. Die Ware wurde mit der Post geliefert und ist bei uns noch nicht angekommen.",
    "en": "The customer has to pay the invoice within fourteen days. If the amount is not in the account by then, a "
    "reminder will be sent. The goods were delivered by post, and one of them was broken when it arrived.",
    "es": "El cliente tiene que pagar la factura en el plazo de catorce días. Si el importe no está en la cuenta, se "
    "enviará un aviso. Los productos fueron entregados por correo y uno de ellos llegó roto, pero no era el más caro.",
    "fr": "Le client doit payer la facture dans les quatorze jours. Si le montant n'est pas sur le compte, une relance "
    "sera envoyée. Les marchandises ont été livrées par la poste et une des pièces est arrivée en mauvais état.",
    "it": "Il cliente deve pagare la fattura entro quattordici giorni. Se la somma non è sul conto, si manda un "
    "sollecito e gli interessi sono a carico del cliente. Le merci sono arrivate con la posta, ma una era rotta.",
    "nl": "De klant moet de factuur binnen veertien dagen betalen. Als het bedrag niet op de rekening staat, wordt er "
    "een herinnering verstuurd. De goederen zijn met de post gekomen, maar een van de stukken was bij aankomst kapot.",
    "pt": "O cliente tem de pagar a fatura no prazo de catorze dias. Se o valor não estiver na conta, é enviado um "
    "aviso. As mercadorias foram entregues pelo correio, mas uma das peças chegou partida e não foi ainda trocada.",
    "sv": "Kunden ska betala fakturan inom fjorton dagar. Om beloppet inte är på kontot skickar vi en påminnelse, och "
    "det kan bli en avgift till. Vi har fått varorna med posten, men en av dem var trasig när den kom fram.",
}
OTHERS = {
    "Polish": "Klient musi zapłacić fakturę w ciągu czternastu dni. Jeżeli kwota nie wpłynie na konto, zostanie "
    "wysłane przypomnienie. Towary zostały dostarczone pocztą i jeden z nich był uszkodzony.",
    "Greek": "Ο πελάτης πρέπει να πληρώσει το τιμολόγιο μέσα σε δεκατέσσερις ημέρες.",  # noqa: RUF001
    "Chinese": "客户必须在十四天内支付发票。如果金额未到账,将发送提醒。",
    "a table": "Item\tQty\tPrice\nWidget\t3\t4.50\nGadget\t1\t9.99\nTotal\t\t23.49",
    "nothing": "",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf())
    return path


def made(processor: Any, file: Path, params: Any, **results: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = asyncio.run(processor.run(source(file, results=results), params, lambda _: None))
    processor.result.model_validate(data, strict=True)
    return data


def language(file: Path, text: str, **stated: Any) -> dict[str, Any]:
    return made(LanguageProcessor(), file, LanguageParams(), text={"text": text, **stated})


@pytest.mark.parametrize("expected", TEXTS)
def test_a_language_that_is_known(expected: str, file: Path) -> None:
    assert language(file, TEXTS[expected]) == {"language": expected, "source": "words"}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_clear_is_not_told(name: str, file: Path) -> None:
    assert language(file, OTHERS[name]) == {"language": None, "source": None}


def test_a_mixture_is_not_told(file: Path) -> None:
    assert language(file, TEXTS["de"] + TEXTS["en"] + TEXTS["fr"])["language"] is None


def test_a_language_that_the_document_states(file: Path) -> None:
    assert language(file, TEXTS["de"], language="en-GB") == {"language": "en-GB", "source": "document"}


def keywords(file: Path, text: str, **params: int) -> dict[str, Any]:
    return made(KeywordsProcessor(), file, KeywordsParams(**params), text={"text": text})


def test_keywords_are_the_frequent_words_that_not_every_text_has(file: Path) -> None:
    text = "The invoice of the Acme Group. An INVOICE, and again an invoice: Acme's payment is due. " + TEXTS["en"]
    found = keywords(file, text, most=3)
    assert found["keywords"] == [
        {"word": "invoice", "count": 4, "score": 1.0},
        {"word": "Acme", "count": 1, "score": 0.25},
        {"word": "Group", "count": 1, "score": 0.25},
    ]
    assert keywords(file, text, most=3) == found


def test_keywords_of_nothing(file: Path) -> None:
    assert keywords(file, "1 2 3 - of a") == {"keywords": [], "words": 2}


def test_keywords_of_a_long_text_are_bounded(file: Path) -> None:
    text = " ".join(f"word{'abcdefghij'[number % 10]}{'abcdefghij'[number // 10 % 10]}" for number in range(100_000))
    found = keywords(file, text, most=100)
    assert (len(found["keywords"]), found["words"]) == (100, 100_000)


@pytest.mark.parametrize("processor", [LanguageProcessor(), KeywordsProcessor()])
def test_without_a_text(processor: Any, file: Path) -> None:
    with pytest.raises(Permanent) as caught:
        made(processor, file, processor.params())
    assert caught.value.code == "text-needed"


def test_what_ocr_has_read_is_used_where_it_is_more(file: Path) -> None:
    thin = {"text": "7", "needs_ocr": [1], "page_count": 1, "language": None}
    read = {"text": TEXTS["fr"]}
    processor, params = LanguageProcessor(), LanguageParams()
    assert made(processor, file, params, text=thin, ocr=read)["language"] == "fr"
    assert made(processor, file, params, ocr=read)["language"] == "fr"
    assert made(processor, file, params, text=thin)["language"] is None
    assert made(processor, file, params, text={"text": TEXTS["sv"]}, ocr=read)["language"] == "sv"


@pytest.mark.parametrize("processor", [LanguageProcessor(), KeywordsProcessor()])
def test_they_keep_their_contract(processor: Any, file: Path) -> None:
    assert [each for each in testing.check(processor, file) if each.fault] == []
