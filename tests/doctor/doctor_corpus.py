"""60 sentences in English and German."""

NOUNS = {"dog": "Hund", "man": "Mann", "tree": "Baum", "table": "Tisch", "father": "Vater", "brother": "Bruder"}
VERBS = {"sees": "sieht", "hears": "hört", "knows": "kennt", "finds": "findet", "draws": "zeichnet"}
ENDS = {"in the garden": "im Garten", "in the morning": "am Morgen"}
PAIRS = [
    (f"The {noun} {verb} an old house {end}.", f"Der {NOUNS[noun]} {VERBS[verb]} ein altes Haus {ENDS[end]}.")
    for noun in NOUNS
    for verb in VERBS
    for end in ENDS
]
