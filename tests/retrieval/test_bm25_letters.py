"""What counts as the same letter, by language: a query finds the passage, however either is typed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optical_hf.retrieval.bm25 import BM25Index
from optical_hf.retrieval.bm25_letters import letter_folding
from optical_hf.retrieval.bm25_terms import analyzer


@pytest.mark.parametrize(
    ("language", "passage", "query"),
    [
        # The dot of I decides in Turkish and its relatives; elsewhere İ is an i.
        ("tr", "İstanbul büyük bir şehirdir.", "istanbul"),
        ("tr", "ISPARTA gül", "ısparta"),
        ("az", "İncəsənət muzeyi", "incəsənət"),
        ("gag", "IŞIK", "ışık"),
        ("en", "İstanbul is big", "Istanbul"),
        ("en", "I\u0307stanbul, i\u0307stanbul", "istanbul"),
        # Words within a clause, in scripts that part none.
        ("yue", "呢本書係香港人寫嘅", "香港人"),
        ("wuu", "伊拉是上海人呀", "上海人"),
        ("km", "ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា", "រាជធានី"),
        ("lo", "ວຽງຈັນເປັນນະຄອນຫຼວງຂອງປະເທດລາວ", "ນະຄອນຫຼວງ"),
        ("lo", "ໃນມື້ນີ້ຂ້ອຍ", "ມື້"),
        ("my", "ရန်ကုန်မြို့သည်မြန်မာနိုင်ငံ၏မြို့တော်ဖြစ်ခဲ့သည်", "မြန်မာ"),
        ("my", "သူသည်စာဖတ်သည်", "စာ"),
        ("th", "เกิดในปีนั้น", "ปี"),
        ("km", "រាជ\u200bធានី", "រាជធានី"),
        # Digits of every script.
        ("hi", "१९४७ में", "1947"),
        ("hi", "1947 में", "१९४७"),
        ("bn", "২০২০ সালে", "2020"),
        ("fa", "۱۳۵۷", "1357"),
        ("ar", "١٩٤٧", "1947"),
        ("th", "พ.ศ.๒๕๖๓", "2563"),
        ("my", "၁၉၄၈ခုနှစ်", "1948"),
        ("km", "ឆ្នាំ២០២០", "2020"),
        ("en", "in १९४७ and \U0001d7cf\U0001d7d0", "1947 12"),
        # Arabic: tatweel, vowel signs, and forms of a letter by the language.
        ("ar", "كـــتاب", "كتاب"),
        ("ar", "علي", "على"),
        ("ar", "أحمد إسلام آمن", "احمد اسلام امن"),
        ("ar", "کتاب", "كتاب"),
        ("arz", "مدرسة", "مدرسه"),
        ("fa", "كتاب علي", "کتاب علی"),
        ("fa", "کِتاب خانهٔ", "کتاب خانه"),
        ("ur", "رحمٰن كتاب", "رحمن کتاب"),
        ("ckb", "كورد ده\u200cچم", "کورد دەچم"),
        # Greek capitals have no accents; a small sigma has two forms.
        ("el", "ΑΘΗΝΑ, ΟΔΟΣ", "Αθήνα οδός"),
        ("grc", "ὁδὸς", "ΟΔΟΣ"),
        ("de", "STRASSE", "Straße"),
        ("gsw", "STRASSE", "Straße"),
        ("fr", "Les sœurs", "soeur"),
        ("ro", "ştiinţă", "știință"),
        ("nb", "bilene", "bil"),
        ("ga", "a nAthair", "athair"),
        ("lt", "I\u0307\u0300", "ì"),
        ("ru", "Москва\u0301 и ёлка", "москва елка"),
        ("uk", "пʼять, п’ять", "п'ять"),
        ("uz", "oʻzbek", "o'zbek"),
        ("he", "שָׁלוֹם", "שלום"),
        ("yi", "װאָס", "וואס"),
        ("ja", "ｶﾅ", "カナ"),
        ("ja", "葛\U000e0100城市", "葛城市"),
        ("bn", "হঠাত্\u200d", "হঠাৎ"),
        ("ml", "അവന്\u200d", "അവൻ"),
        ("si", "ශ්\u200dරී", "ශ්රී"),
        ("sw", "co\u00adoperate\ufeff", "cooperate"),
    ],
)
def test_a_query_finds_the_passage(language: str, passage: str, query: str, tmp_path) -> None:
    terms = analyzer(language)(query)
    assert terms and set(terms) <= set(analyzer(language)(passage))
    index = BM25Index.build([("a", passage), ("b", "xyzzy")], language, tmp_path / "index")
    assert list(index.search({"q": query})["q"]) == ["a"]


@pytest.mark.parametrize(
    ("language", "letter", "other"),
    [
        ("tr", "kız", "kiz"),
        ("tr", "IRK", "irk"),
        ("ug", "ى", "ي"),  # i and y
        ("ps", "ی", "ي"),
        ("sd", "ک", "ك"),
        ("ks", "\u0643\u064e", "\u0643"),
        ("ga", "nathair", "athair"),
        ("mk", "ѓ", "г"),
        ("da", "œ", "oe"),
        ("yo", "ọ", "o"),
        ("ar", "ة", "ه"),
    ],
)
def test_letters_that_are_not_the_same_stay_apart(language: str, letter: str, other: str) -> None:
    fold = letter_folding(language)
    assert fold(letter) != fold(other)


LANGUAGES = st.sampled_from(
    ["en", "tr", "ga", "el", "fa", "ar", "ckb", "he", "hi", "ml", "my", "th", "zh", "ko", "ru"]
)
SCRIPTS = "aAiIİıßſéọάΣςστёЙй\u0301\u0307\u0316كيىیةهאָשׁकि१ണ്ന\u200dമൻစာန်ပြိกำที่尼罗ｶﾞカ한국어ʼ'9٣ \n.-ﷺ\U0001f525"


@given(LANGUAGES, st.text(st.sampled_from(SCRIPTS) | st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_normal_form_and_what_cannot_be_seen_do_not_matter(language: str, text: str) -> None:
    analyze = analyzer(language)
    terms = analyze(text)
    assert analyze(unicodedata.normalize("NFD", text)) == analyze(unicodedata.normalize("NFC", text)) == terms
    assert analyze(f"\ufeff{text}\u200e") == terms
    # What one language takes for the same letter is not taken apart again.
    fold = letter_folding(language)
    assert fold(fold(text)) == fold(text)
    # A passage without a bigram letter has the same words beside one that has some.
    assert [term for term in analyze(f"{text} 漢") if term != "漢"] == terms
