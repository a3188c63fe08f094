"""The texts of the probes. They are fixed and do not come from any corpus, so a space never contains a user's text."""

from __future__ import annotations

# The references of encoders, and the spaces up to format 2, name these by their position: never change or move one.
PROBE_TEXTS: tuple[str, ...] = (
    "a",
    "What is the boiling point of water at sea level?",
    "The mitochondrion is the powerhouse of the cell.",
    "how to reset a forgotten password",
    "SELECT name, COUNT(*) FROM orders WHERE year >= 2020 GROUP BY name;",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "La qualité de l'air s'est améliorée depuis 1995, mais lentement.",
    "机器学习模型将文本转换为向量。",
    "データベースの索引を再構築する。",
    "Быстрый поиск по смыслу в большом собрании документов.",
    "E = mc², α ≈ 1/137, ∑ 1/n² = π²/6",
    "  leading and trailing spaces,\ttabs\nand line breaks  ",
    "ALL CAPITALS AND Mixed Case AND lower case",
    "error: cannot open '/etc/app.conf': permission denied (errno 13)",
    "😀 emoji, ﬁ ligature, e\u0301 combining accent, \u200b zero width space",
    " ".join(["Retrieval quality falls when documents and queries are not transformed alike."] * 12),
)

# Tokenized and never encoded, so many of them cost little: each has what some rule of a tokenizer changes. Format 3
# stores the texts of a space with it, so these may change.
TOKENIZER_TEXTS: tuple[str, ...] = (
    # Scripts. Hangul syllables and letters, Arabic and Hebrew points, Devanagari and Thai signs are taken apart,
    # recomposed, or dropped by Unicode normal forms and by strippers of accents.
    "한국어 문장 각각",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u3131 \uffa1",
    "العَرَبِيَّة لُغَةٌ ﷺ ﻻ",
    "עִבְרִית שָׁלוֹם \ufb2a",
    "हिन्दी क्षि ज़ \u0958",
    "ภาษาไทย น้ำ กำ",
    "தமிழ் கொ বাংলা ড়",
    "ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն և",
    "Ελληνικά ΆΣς σοφός \u1f04",
    "İstanbul IĞDIR ı ß ẞ Straße ŁÓDŹ ǅ",
    "Tiếng Việt: ắ ậ ợ, Čeština: ř, Polski: ł, Íslenska: ð",
    "й Й ё \u0438\u0306 Ї Ґ",
    "ＡＢＣ １２３ ！？ ｶﾞｷﾞ ﾊﾟ \u3000 が か\u3099",
    "𠀀𠮷 漢字かなカナ㌔㍻ 〇々",
    "𝐀𝒷ℂ ①② Ⅳ ½ ² ₃ ™ ℃ Å K µ",
    # Marks of these scripts on Latin letters: a word with an unknown letter can be one unknown token as a whole.
    "a\u064bb c\u0650d e\u0651f g\u0652h i\u0670j a\u05b8b c\u05c1d a\u093cb c\u0941d e\u094df a\u0e33b c\u0e48d",
    "a\u0301b c\u0323d e\u0338f g\u0345h i\u20d7j k\u3099l m\ufe0fn o\u0bcap q\u09bcr s\u0488t u\u1160v",
    # Letters whose small form depends on whether they are recomposed first, and numerals that are repeated.
    "Ϲ ϴ ϒ \u1e9e \u0130 \u2126 \u212b \u01c5 \u1fbc",
    "٠٠ ११ ২২ ๓๓ ௪௪ ೫೫ ៦៦ ၇၇ ۸۸ ߉߉ ⅤⅤ ½½ ③③ ⁵⁵",
    # Emoji that are joined, colored, and made of flags and keycaps.
    "👩\u200d👩\u200d👧 👍🏽 🇩🇪 ❤\ufe0f 1\ufe0f\u20e3",
    # Control characters, invisible characters, and spaces.
    "a\x00b \x07c\x1b[0m d\x7fe\x85f",
    "x\u200by\u200cz \u200d\u200e\u200f w\u2060v \ufeffu so\u00adft \ufffd",
    "no\u00a0break\u202fthin\u2009space\u2003em\u3000wide",
    "two  three   spaces\t\ttabs\r\nreturn\n\n\nlines\u2028line\u2029paragraph",
    # Private, unassigned, interlinear, and tag characters, and signs that format Arabic numbers.
    "p\ue000q r\u0378s t\ufff9u v\U000e0041w \u0600x \u061cy \u180ez \u06dd",
    " one space before",
    "one space after ",
    "\n\tbreak before, break after\n",
    # Punctuation and quotation marks.
    "“quote” ‘x’ „low‟ «angle» ``grave'' it`s 'single' \"double\"",
    "– — ― − - -- --- … ... .. · • ‥ ¿ ¡ ‽",
    "don't we'll I'M they'RE l'eau rock’n’roll o'clock's ain’T",
    "!!! ??? ,,, ;;; ((a)) [b] {c} <d> /e/ \\f | g ~ h ^ i @ j # k $ l % m & n * o + p = q",
    "€5 £6 ¥7 ₿8 §9 ¶ † ‰ № © ® ° ± × ÷ ¬",
    # Numbers, identifiers, and addresses.
    "1234567890123 12 345 6,789.01 1e-5 0x1F 3.14 v2.0.1 1995-06-07 12:30",
    "٣٤٥ ४५६ ๓๔ ০১ ௧௨ ೦೧ ០១ ၀၁ ۰۱ ߀߁ ²³ ¼½ ⅠⅡ 一二三 a1b2c3 4th 5G",
    "snake_case camelCase PascalCase HTTPServer kebab-case UPPER_CASE __init__ x_1",
    "https://a.b/c?d=e&f=g#h me@example.org #tag @user C:\\dir\\file.txt ../x",
    # Words of 40, 75, 150, and 250 letters: some models give up on words that are too long.
    " ".join(("abcdefghij" * 25)[:length] for length in (40, 75, 150, 250)),
    # What tokenizers write for spaces and pieces, and the names of their special tokens.
    "▁under ▁▁ ##ing Ġspace Ċline </w> @@ a▁b",
    "[CLS] a [SEP] b [MASK] c [UNK] d [PAD]",
    "<s> a </s> b <mask> c <unk> d <pad> <|endoftext|> <0x0A>",
    "\u1fef\u1fef \uff40\uff40 \u037e \u2126 \u212a \u00b4 café cafe\u0301 naïve ﬀ ﬃ ﬆ ǆ e\u0327\u0301 \u0344 \u212b",
)
