"""The words of the demo corpus: tables of English and German, one lemma per line.

Every English form has exactly one German translation, so that the English side determines the German side. Words such
as "fish" (one fish, two fish) are therefore left out, and the sampler never uses "read" or "put on" in the past.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a noun denotes. Verbs and adjectives select nouns by kind, so that sentences make sense."""

    PERSON = "person"
    ANIMAL = "animal"
    FOOD = "food"
    DRINK = "drink"
    CLOTHING = "clothing"
    READING = "reading"
    OPENING = "opening"
    DEVICE = "device"
    VEHICLE = "vehicle"
    THING = "thing"
    PLACE = "place"


class Case(StrEnum):
    """The German cases."""

    NOMINATIVE = "nominative"
    ACCUSATIVE = "accusative"
    DATIVE = "dative"
    GENITIVE = "genitive"


class Agreement(StrEnum):
    """Person and number of a finite verb. "We", "they" and plural nouns take the same form in both languages."""

    FIRST = "first person singular"
    THIRD = "third person singular"
    PLURAL = "plural"


class Time(StrEnum):
    """The time of a clause."""

    PRESENT = "present"
    PAST = "past"
    FUTURE = "future"


@dataclass(frozen=True)
class Noun:
    """A noun with gender "m", "f" or "n". Weak nouns use their plural form in all singular cases but the nominative."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: str
    kind: Kind
    weak: bool
    countable: bool


@dataclass(frozen=True)
class Adjective:
    """An adjective. Endings are appended to its stem: teuer, ein teur-es Auto."""

    english: str
    german: str
    stem: str
    kinds: frozenset[Kind]


@dataclass(frozen=True)
class Preposition:
    """A preposition as the translation of an English one, with the case that it governs in this sense."""

    english: str
    german: str
    case: Case


@dataclass(frozen=True)
class Finite:
    """The finite forms of a German verb."""

    first: str
    third: str
    plural: str

    def get_form(self, agreement: Agreement) -> str:
        """Returns the form for a subject's person and number."""
        return {Agreement.FIRST: self.first, Agreement.THIRD: self.third, Agreement.PLURAL: self.plural}[agreement]


@dataclass(frozen=True)
class Verb:
    """A verb with its forms, and the kinds of nouns that it combines with.

    Attributes:
        prefix: separable prefix, or "".
        objects: kinds of its object; empty for a verb without an object.
        case: case of the object.
        prepositions: if there are any, one of them precedes the object and determines its case.
        recipient: whether a person in the dative precedes the object.
    """

    english: str
    english_past: str
    infinitive: str
    prefix: str
    finite: Finite
    participle: str
    auxiliary: Finite
    subjects: frozenset[Kind]
    objects: frozenset[Kind]
    case: Case
    prepositions: tuple[Preposition, ...]
    recipient: bool


@dataclass(frozen=True)
class Modal:
    """An auxiliary verb that takes an infinitive. It also forms the future."""

    english: str
    english_third: str
    german: str
    finite: Finite


@dataclass(frozen=True)
class Determiner:
    """An article or similar word.

    Attributes:
        pattern: how it is inflected: as "definite", "der" (dieser), "ein" (mein), "viel", or "none" (no endings).
    """

    english: str
    german: str
    pattern: str
    plural: bool


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun, used as a subject."""

    english: str
    german: str
    agreement: Agreement


@dataclass(frozen=True)
class Adverbial:
    """An expression of time that starts a sentence."""

    english: str
    german: str
    time: Time


@dataclass(frozen=True)
class Conjunction:
    """A word that starts a subordinate clause."""

    english: str
    german: str


@dataclass(frozen=True)
class Opinion:
    """A verb with a clause as its object, as in "she knows that …"."""

    english: str
    conjunction: Conjunction
    infinitive: str
    finite: Finite


def _parse_rows(table: str) -> Iterator[tuple[str, str]]:
    """Yields both sides of each line "english = german"."""
    for line in table.strip().splitlines():
        english, german = line.split(" = ")
        yield english.strip(), german.strip()


def add_s(word: str) -> str:
    """Adds the s of plurals and of the third person; for phrases such as "turn on", to the first word.

    >>> [add_s(word) for word in ("box", "city", "boy", "go out")]
    ['boxes', 'cities', 'boys', 'goes out']
    """
    head, space, tail = word.partition(" ")
    if head.endswith("y") and head[-2] not in "aeou":
        return head[:-1] + "ies" + space + tail
    sibilant = head.endswith(("s", "x", "ch", "sh", "o")) and head not in ("piano", "radio")
    return head + ("es" if sibilant else "s") + space + tail


def _add_ed(verb: str) -> str:
    head, space, tail = verb.partition(" ")
    if head.endswith("y") and head[-2] not in "aeou":
        return head[:-1] + "ied" + space + tail
    return head + ("d" if head.endswith("e") else "ed") + space + tail


def _parse_nouns(kind: Kind, table: str, *, countable: bool = True) -> list[Noun]:
    """Reads lines such as "child/children = das Kind/Kinder [weak]"; regular English plurals are left out."""
    nouns = []
    for english, german in _parse_rows(table):
        article, forms, *weak = german.split()
        singular, _, plural = english.partition("/")
        german_singular, _, german_plural = forms.partition("/")
        gender = {"der": "m", "die": "f", "das": "n"}[article]
        plural = plural or add_s(singular)
        nouns.append(Noun(singular, plural, german_singular, german_plural, gender, kind, weak == ["weak"], countable))
    return nouns


NOUNS: tuple[Noun, ...] = (
    *_parse_nouns(
        Kind.PERSON,
        """
        man/men = der Mann/Männer
        woman/women = die Frau/Frauen
        child/children = das Kind/Kinder
        boy = der Junge/Jungen weak
        girl = das Mädchen/Mädchen
        mother = die Mutter/Mütter
        father = der Vater/Väter
        son = der Sohn/Söhne
        daughter = die Tochter/Töchter
        brother = der Bruder/Brüder
        sister = die Schwester/Schwestern
        uncle = der Onkel/Onkel
        aunt = die Tante/Tanten
        niece = die Nichte/Nichten
        nephew = der Neffe/Neffen weak
        grandmother = die Großmutter/Großmütter
        grandfather = der Großvater/Großväter
        teacher = der Lehrer/Lehrer
        student = der Student/Studenten weak
        doctor = der Arzt/Ärzte
        nurse = die Krankenschwester/Krankenschwestern
        farmer = der Bauer/Bauern weak
        baker = der Bäcker/Bäcker
        king = der König/Könige
        queen = die Königin/Königinnen
        princess = die Prinzessin/Prinzessinnen
        neighbour = der Nachbar/Nachbarn weak
        guest = der Gast/Gäste
        friend = der Freund/Freunde
        colleague = der Kollege/Kollegen weak
        customer = der Kunde/Kunden weak
        tourist = der Tourist/Touristen weak
        soldier = der Soldat/Soldaten weak
        policeman/policemen = der Polizist/Polizisten weak
        waiter = der Kellner/Kellner
        waitress = die Kellnerin/Kellnerinnen
        actress = die Schauspielerin/Schauspielerinnen
        singer = der Sänger/Sänger
        lawyer = der Anwalt/Anwälte
        artist = der Künstler/Künstler
        lady = die Dame/Damen
        gardener = der Gärtner/Gärtner
        judge = der Richter/Richter
        """,
    ),
    *_parse_nouns(
        Kind.ANIMAL,
        """
        dog = der Hund/Hunde
        cat = die Katze/Katzen
        horse = das Pferd/Pferde
        cow = die Kuh/Kühe
        bird = der Vogel/Vögel
        mouse/mice = die Maus/Mäuse
        pig = das Schwein/Schweine
        goat = die Ziege/Ziegen
        duck = die Ente/Enten
        rabbit = das Kaninchen/Kaninchen
        bear = der Bär/Bären weak
        lion = der Löwe/Löwen weak
        wolf/wolves = der Wolf/Wölfe
        fox = der Fuchs/Füchse
        monkey = der Affe/Affen weak
        elephant = der Elefant/Elefanten weak
        frog = der Frosch/Frösche
        snake = die Schlange/Schlangen
        donkey = der Esel/Esel
        lamb = das Lamm/Lämmer
        """,
    ),
    *_parse_nouns(
        Kind.FOOD,
        """
        apple = der Apfel/Äpfel
        pear = die Birne/Birnen
        banana = die Banane/Bananen
        egg = das Ei/Eier
        cake = der Kuchen/Kuchen
        potato = die Kartoffel/Kartoffeln
        tomato = die Tomate/Tomaten
        carrot = die Karotte/Karotten
        sausage = die Wurst/Würste
        cherry = die Kirsche/Kirschen
        strawberry = die Erdbeere/Erdbeeren
        roll = das Brötchen/Brötchen
        peach = der Pfirsich/Pfirsiche
        plum = die Pflaume/Pflaumen
        nut = die Nuss/Nüsse
        """,
    ),
    *_parse_nouns(
        Kind.FOOD,
        """
        bread = das Brot
        cheese = der Käse
        butter = die Butter
        meat = das Fleisch
        soup = die Suppe
        rice = der Reis
        ham = der Schinken
        honey = der Honig
        fruit = das Obst
        chocolate = die Schokolade
        """,
        countable=False,
    ),
    *_parse_nouns(
        Kind.DRINK,
        """
        water = das Wasser
        milk = die Milch
        coffee = der Kaffee
        tea = der Tee
        beer = das Bier
        wine = der Wein
        juice = der Saft
        lemonade = die Limonade
        """,
        countable=False,
    ),
    *_parse_nouns(
        Kind.CLOTHING,
        """
        coat = der Mantel/Mäntel
        jacket = die Jacke/Jacken
        dress = das Kleid/Kleider
        shirt = das Hemd/Hemden
        skirt = der Rock/Röcke
        hat = der Hut/Hüte
        shoe = der Schuh/Schuhe
        boot = der Stiefel/Stiefel
        glove = der Handschuh/Handschuhe
        sweater = der Pullover/Pullover
        cap = die Mütze/Mützen
        blouse = die Bluse/Blusen
        """,
    ),
    *_parse_nouns(
        Kind.READING,
        """
        book = das Buch/Bücher
        letter = der Brief/Briefe
        newspaper = die Zeitung/Zeitungen
        magazine = die Zeitschrift/Zeitschriften
        poem = das Gedicht/Gedichte
        story = die Geschichte/Geschichten
        novel = der Roman/Romane
        report = der Bericht/Berichte
        """,
    ),
    *_parse_nouns(
        Kind.OPENING,
        """
        door = die Tür/Türen
        window = das Fenster/Fenster
        gate = das Tor/Tore
        drawer = die Schublade/Schubladen
        cupboard = der Schrank/Schränke
        suitcase = der Koffer/Koffer
        box = die Kiste/Kisten
        """,
    ),
    *_parse_nouns(
        Kind.DEVICE,
        """
        lamp = die Lampe/Lampen
        radio = das Radio/Radios
        television = der Fernseher/Fernseher
        computer = der Computer/Computer
        oven = der Ofen/Öfen
        heater = die Heizung/Heizungen
        camera = die Kamera/Kameras
        """,
    ),
    *_parse_nouns(
        Kind.VEHICLE,
        """
        car = das Auto/Autos
        bicycle = das Fahrrad/Fahrräder
        bus = der Bus/Busse
        train = der Zug/Züge
        ship = das Schiff/Schiffe
        truck = der Lastwagen/Lastwagen
        boat = das Boot/Boote
        motorcycle = das Motorrad/Motorräder
        """,
    ),
    *_parse_nouns(
        Kind.THING,
        """
        table = der Tisch/Tische
        chair = der Stuhl/Stühle
        picture = das Bild/Bilder
        clock = die Uhr/Uhren
        vase = die Vase/Vasen
        bag = die Tasche/Taschen
        basket = der Korb/Körbe
        bottle = die Flasche/Flaschen
        cup = die Tasse/Tassen
        plate = der Teller/Teller
        knife/knives = das Messer/Messer
        fork = die Gabel/Gabeln
        spoon = der Löffel/Löffel
        key = der Schlüssel/Schlüssel
        umbrella = der Regenschirm/Regenschirme
        flower = die Blume/Blumen
        ring = der Ring/Ringe
        ball = der Ball/Bälle
        doll = die Puppe/Puppen
        gift = das Geschenk/Geschenke
        mirror = der Spiegel/Spiegel
        carpet = der Teppich/Teppiche
        guitar = die Gitarre/Gitarren
        piano = das Klavier/Klaviere
        """,
    ),
    *_parse_nouns(
        Kind.PLACE,
        """
        house = das Haus/Häuser
        garden = der Garten/Gärten
        school = die Schule/Schulen
        church = die Kirche/Kirchen
        city = die Stadt/Städte
        village = das Dorf/Dörfer
        forest = der Wald/Wälder
        park = der Park/Parks
        kitchen = die Küche/Küchen
        hotel = das Hotel/Hotels
        restaurant = das Restaurant/Restaurants
        hospital = das Krankenhaus/Krankenhäuser
        office = das Büro/Büros
        museum = das Museum/Museen
        theatre = das Theater/Theater
        cinema = das Kino/Kinos
        castle = das Schloss/Schlösser
        library = die Bibliothek/Bibliotheken
        factory = die Fabrik/Fabriken
        shop = das Geschäft/Geschäfte
        cellar = der Keller/Keller
        room = das Zimmer/Zimmer
        bakery = die Bäckerei/Bäckereien
        barn = die Scheune/Scheunen
        tower = der Turm/Türme
        """,
    ),
)


def _parse_adjectives(kinds: set[Kind], table: str) -> list[Adjective]:
    """Reads lines such as "expensive = teuer/teur"; a stem that equals the word is left out."""
    adjectives = []
    for english, german in _parse_rows(table):
        word, _, stem = german.partition("/")
        adjectives.append(Adjective(english, word, stem or word, frozenset(kinds)))
    return adjectives


_OBJECTS = {Kind.THING, Kind.OPENING, Kind.DEVICE, Kind.VEHICLE, Kind.CLOTHING}
_EDIBLE = {Kind.FOOD, Kind.DRINK}

ADJECTIVES: tuple[Adjective, ...] = (
    *_parse_adjectives({*_OBJECTS, Kind.READING, Kind.PLACE}, "new = neu\nmodern = modern"),
    *_parse_adjectives({*_OBJECTS, Kind.READING, Kind.PLACE, Kind.PERSON, Kind.ANIMAL}, "old = alt"),
    *_parse_adjectives(
        {*_OBJECTS, Kind.PLACE, Kind.ANIMAL}, "big = groß\nsmall = klein\nbeautiful = schön\nugly = hässlich"
    ),
    *_parse_adjectives(
        {Kind.PERSON},
        """
        nice = nett
        friendly = freundlich
        rich = reich
        poor = arm
        clever = klug
        brave = mutig
        polite = höflich
        happy = glücklich
        sad = traurig
        angry = wütend
        nervous = nervös
        proud = stolz
        lonely = einsam
        patient = geduldig
        busy = beschäftigt
        """,
    ),
    *_parse_adjectives(
        {Kind.PERSON, Kind.ANIMAL},
        """
        young = jung
        strong = stark
        lazy = faul
        tired = müde/müd
        sick = krank
        healthy = gesund
        dangerous = gefährlich
        hungry = hungrig
        thirsty = durstig
        curious = neugierig
        """,
    ),
    *_parse_adjectives({Kind.PERSON, Kind.PLACE}, "famous = berühmt"),
    *_parse_adjectives(
        {Kind.CLOTHING, Kind.VEHICLE, Kind.THING, Kind.OPENING},
        """
        red = rot
        blue = blau
        green = grün
        yellow = gelb
        """,
    ),
    *_parse_adjectives({*_OBJECTS, Kind.ANIMAL}, "black = schwarz\nwhite = weiß\nbrown = braun"),
    *_parse_adjectives(_EDIBLE, "fresh = frisch\ndelicious = lecker\nsweet = süß\ncold = kalt\nwarm = warm"),
    *_parse_adjectives({*_OBJECTS, *_EDIBLE}, "expensive = teuer/teur\ncheap = billig"),
    *_parse_adjectives(_OBJECTS, "broken = kaputt\nheavy = schwer\ndirty = schmutzig\npractical = praktisch"),
    *_parse_adjectives(
        {Kind.READING},
        """
        interesting = interessant
        boring = langweilig
        long = lang
        short = kurz
        funny = lustig
        exciting = spannend
        difficult = schwierig
        """,
    ),
    *_parse_adjectives({Kind.PLACE}, "quiet = ruhig\ndark = dunkel/dunkl\nbright = hell\nempty = leer"),
)

_MOODS = {
    "happy",
    "sad",
    "angry",
    "nervous",
    "proud",
    "lonely",
    "busy",
    "tired",
    "sick",
    "hungry",
    "thirsty",
    "curious",
}
MOODS: tuple[Adjective, ...] = tuple(adjective for adjective in ADJECTIVES if adjective.english in _MOODS)
"""What can pass for a reason: people do things because they are tired, hardly because they are famous."""

_IN = Preposition("in", "in", Case.DATIVE)
_BEHIND = Preposition("behind", "hinter", Case.DATIVE)
_IN_FRONT_OF = Preposition("in front of", "vor", Case.DATIVE)
_NEXT_TO = Preposition("next to", "neben", Case.DATIVE)
_INTO = Preposition("into", "in", Case.ACCUSATIVE)
_TO = Preposition("to", "zu", Case.DATIVE)
_OUT_OF = Preposition("out of", "aus", Case.DATIVE)
_WITH = Preposition("with", "mit", Case.DATIVE)
_FOR = Preposition("for", "für", Case.ACCUSATIVE)
_WAIT_FOR = Preposition("for", "auf", Case.ACCUSATIVE)
_ASK_FOR = Preposition("for", "um", Case.ACCUSATIVE)
_THINK_OF = Preposition("of", "an", Case.ACCUSATIVE)
_DREAM_OF = Preposition("of", "von", Case.DATIVE)
_TALK_TO = Preposition("to", "mit", Case.DATIVE)
_ABOUT = Preposition("about", "über", Case.ACCUSATIVE)
_LAUGH_AT = Preposition("at", "über", Case.ACCUSATIVE)

HAVE = Finite("habe", "hat", "haben")
BE = Finite("bin", "ist", "sind")
WAS = Finite("war", "war", "waren")

_UNSTRESSED = ("be", "ver", "zer", "ent", "er", "emp")


def _conjugate_regular(infinitive: str) -> tuple[str, str]:
    """Returns the third person and the participle of a regular verb.

    >>> _conjugate_regular("arbeiten"), _conjugate_regular("besuchen"), _conjugate_regular("reparieren")
    (('arbeitet', 'gearbeitet'), ('besucht', 'besucht'), ('repariert', 'repariert'))
    """
    stem = infinitive[:-2] if infinitive.endswith("en") else infinitive[:-1]
    third = stem + ("et" if stem.endswith(("d", "t", "chn")) else "t")
    without_ge = infinitive.startswith(_UNSTRESSED) or infinitive.endswith("ieren")
    return third, third if without_ge else "ge" + third


def _form_first_person(infinitive: str) -> str:
    """Returns the first person singular: kaufen, kaufe; füttern, füttere; lächeln, lächle."""
    if infinitive.endswith("eln"):
        return infinitive[:-3] + "le"
    return infinitive[:-1] + ("e" if infinitive.endswith("ern") else "")


def _parse_verbs(
    table: str,
    *,
    objects: set[Kind] | None = None,
    subjects: set[Kind] | None = None,
    case: Case = Case.ACCUSATIVE,
    prepositions: tuple[Preposition, ...] = (),
    recipient: bool = False,
) -> list[Verb]:
    """Reads lines such as "call = an|rufen ruft gerufen [sein]"; regular forms are left out.

    "sein" marks verbs that form their perfect with it: sie ist gelaufen.
    """
    verbs = []
    for english, german in _parse_rows(table):
        base, _, past = english.partition("/")
        whole, *forms = german.split()
        auxiliary = BE if forms and forms[-1] == "sein" else HAVE
        prefix, _, infinitive = whole.rpartition("|")
        third, participle = [form for form in forms if form != "sein"] or _conjugate_regular(infinitive)
        verb = Verb(
            english=base,
            english_past=past or _add_ed(base),
            infinitive=infinitive,
            prefix=prefix,
            finite=Finite(_form_first_person(infinitive), third, infinitive),
            participle=prefix + participle,
            auxiliary=auxiliary,
            subjects=frozenset(subjects or {Kind.PERSON}),
            objects=frozenset(objects or ()),
            case=case,
            prepositions=prepositions,
            recipient=recipient,
        )
        verbs.append(verb)
    return verbs


_LIVING = {Kind.PERSON, Kind.ANIMAL}
_PORTABLE = {Kind.THING, Kind.READING, Kind.CLOTHING}
_GOODS = {*_PORTABLE, *_EDIBLE, Kind.DEVICE}
_VISIBLE = {*_LIVING, *_OBJECTS, Kind.PLACE}

VERBS: tuple[Verb, ...] = (
    *_parse_verbs("buy/bought = kaufen\nsell/sold = verkaufen\nneed = brauchen", objects={*_GOODS, Kind.VEHICLE}),
    *_parse_verbs("see/saw = sehen sieht gesehen", subjects=_LIVING, objects=_VISIBLE),
    *_parse_verbs(
        """
        look for = suchen
        find/found = finden findet gefunden
        draw/drew = zeichnen
        look at = an|sehen sieht gesehen
        photograph = fotografieren
        """,
        objects=_VISIBLE,
    ),
    *_parse_verbs("visit = besuchen", objects={Kind.PERSON, Kind.PLACE}),
    *_parse_verbs("leave/left = verlassen verlässt verlassen", objects={Kind.PLACE}),
    *_parse_verbs(
        """
        meet/met = treffen trifft getroffen
        greet = grüßen
        love = lieben
        admire = bewundern
        praise = loben
        warn = warnen
        pick up = ab|holen
        call = an|rufen ruft gerufen
        invite = ein|laden lädt geladen
        introduce = vor|stellen
        """,
        objects={Kind.PERSON},
    ),
    *_parse_verbs("hear/heard = hören", subjects=_LIVING, objects=_LIVING),
    *_parse_verbs("feed/fed = füttern\ncatch/caught = fangen fängt gefangen", objects={Kind.ANIMAL}),
    *_parse_verbs("eat/ate = essen isst gegessen\neat up/ate up = auf|essen isst gegessen", objects={Kind.FOOD}),
    *_parse_verbs(
        "drink/drank = trinken trinkt getrunken\ndrink up/drank up = aus|trinken trinkt getrunken", objects={Kind.DRINK}
    ),
    *_parse_verbs("taste = probieren\norder = bestellen", objects=_EDIBLE),
    *_parse_verbs(
        """
        read/read = lesen liest gelesen
        write/wrote = schreiben schreibt geschrieben
        understand/understood = verstehen versteht verstanden
        """,
        objects={Kind.READING},
    ),
    *_parse_verbs(
        """
        wash = waschen wäscht gewaschen
        wear/wore = tragen trägt getragen
        put on/put on = an|ziehen zieht gezogen
        take off/took off = aus|ziehen zieht gezogen
        try on = an|probieren
        hang up/hung up = auf|hängen
        """,
        objects={Kind.CLOTHING},
    ),
    *_parse_verbs("repair = reparieren\ndestroy = zerstören", objects={Kind.DEVICE, Kind.VEHICLE}),
    *_parse_verbs(
        """
        lose/lost = verlieren verliert verloren
        forget/forgot = vergessen vergisst vergessen
        hide/hid = verstecken
        steal/stole = stehlen stiehlt gestohlen
        pack = ein|packen
        unpack = aus|packen
        give back/gave back = zurück|geben gibt gegeben
        throw away/threw away = weg|werfen wirft geworfen
        """,
        objects=_PORTABLE,
    ),
    *_parse_verbs("bring along/brought along = mit|bringen bringt gebracht", objects=_GOODS),
    *_parse_verbs("take along/took along = mit|nehmen nimmt genommen", objects={*_GOODS, Kind.PERSON}),
    *_parse_verbs(
        """
        open = auf|machen
        close = zu|machen
        lock = ab|schließen schließt geschlossen
        """,
        objects={Kind.OPENING},
    ),
    *_parse_verbs("turn on = ein|schalten\nturn off = aus|schalten", objects={Kind.DEVICE}),
    *_parse_verbs(
        """
        help = helfen hilft geholfen
        thank = danken
        answer = antworten
        trust = vertrauen
        congratulate = gratulieren
        forgive/forgave = verzeihen verzeiht verziehen
        listen to = zu|hören
        """,
        objects={Kind.PERSON},
        case=Case.DATIVE,
    ),
    *_parse_verbs("follow = folgen folgt gefolgt sein", subjects=_LIVING, objects=_LIVING, case=Case.DATIVE),
    *_parse_verbs(
        """
        give/gave = geben gibt gegeben
        bring/brought = bringen bringt gebracht
        offer = an|bieten bietet geboten
        """,
        objects={*_PORTABLE, *_EDIBLE},
        recipient=True,
    ),
    *_parse_verbs(
        """
        show = zeigen
        send/sent = schicken
        lend/lent = leihen leiht geliehen
        """,
        objects=_PORTABLE,
        recipient=True,
    ),
    *_parse_verbs("wait = warten", objects={Kind.PERSON, Kind.VEHICLE}, prepositions=(_WAIT_FOR,)),
    *_parse_verbs("ask = bitten bittet gebeten", objects=_EDIBLE, prepositions=(_ASK_FOR,)),
    *_parse_verbs("think/thought = denken denkt gedacht", objects={Kind.PERSON, Kind.PLACE}, prepositions=(_THINK_OF,)),
    *_parse_verbs("dream/dreamed = träumen", objects={*_LIVING, Kind.PLACE, Kind.VEHICLE}, prepositions=(_DREAM_OF,)),
    *_parse_verbs("talk = sprechen spricht gesprochen", objects={Kind.PERSON}, prepositions=(_TALK_TO,)),
    *_parse_verbs("talk = sprechen spricht gesprochen", objects={*_LIVING, Kind.READING}, prepositions=(_ABOUT,)),
    *_parse_verbs("laugh = lachen", objects={*_LIVING, Kind.READING}, prepositions=(_LAUGH_AT,)),
    *_parse_verbs("dance = tanzen", objects={Kind.PERSON}, prepositions=(_WITH,)),
    *_parse_verbs("play = spielen", subjects=_LIVING, objects=_LIVING, prepositions=(_WITH,)),
    *_parse_verbs("work = arbeiten", objects={Kind.PERSON}, prepositions=(_FOR,)),
    *_parse_verbs(
        """
        sleep/slept = schlafen schläft geschlafen
        wait = warten
        sit/sat = sitzen sitzt gesessen
        play = spielen
        """,
        subjects=_LIVING,
        objects={Kind.PLACE},
        prepositions=(_IN, _IN, _BEHIND, _IN_FRONT_OF, _NEXT_TO),
    ),
    *_parse_verbs(
        "work = arbeiten\nlive = wohnen\nsing/sang = singen singt gesungen\ndance = tanzen",
        objects={Kind.PLACE},
        prepositions=(_IN, _IN, _BEHIND, _NEXT_TO),
    ),
    *_parse_verbs(
        "run/ran = laufen läuft gelaufen sein\ncome/came = kommen kommt gekommen sein",
        subjects=_LIVING,
        objects={Kind.PLACE},
        prepositions=(_INTO, _TO, _OUT_OF),
    ),
    *_parse_verbs(
        "go/went = gehen geht gegangen sein\nhurry = eilen eilt geeilt sein",
        objects={Kind.PLACE},
        prepositions=(_INTO, _TO),
    ),
    *_parse_verbs(
        "drive/drove = fahren fährt gefahren sein\nreturn = zurück|kehren kehrt gekehrt sein",
        objects={Kind.PLACE},
        prepositions=(_TO,),
    ),
    *_parse_verbs(
        "flee/fled = fliehen flieht geflohen sein",
        subjects=_LIVING,
        objects={Kind.PLACE},
        prepositions=(_INTO, _OUT_OF),
    ),
    *_parse_verbs("laugh = lachen\ncry = weinen\nsmile = lächeln\nsing/sang = singen singt gesungen"),
    *_parse_verbs(
        """
        get up/got up = auf|stehen steht gestanden sein
        go out/went out = aus|gehen geht gegangen sein
        come back/came back = zurück|kommen kommt gekommen sein
        watch television = fern|sehen sieht gesehen
        arrive = an|kommen kommt gekommen sein
        """
    ),
    *_parse_verbs(
        """
        fall asleep/fell asleep = ein|schlafen schläft geschlafen sein
        wake up/woke up = auf|wachen wacht gewacht sein
        run away/ran away = weg|laufen läuft gelaufen sein
        """,
        subjects=_LIVING,
    ),
)

WILL = Modal("will", "will", "werden", Finite("werde", "wird", "werden"))
WANT = Modal("want to", "wants to", "wollen", Finite("will", "will", "wollen"))
MODALS: tuple[Modal, ...] = (
    WILL,
    WANT,
    Modal("can", "can", "können", Finite("kann", "kann", "können")),
    Modal("must", "must", "müssen", Finite("muss", "muss", "müssen")),
    Modal("should", "should", "sollen", Finite("soll", "soll", "sollen")),
    Modal("may", "may", "dürfen", Finite("darf", "darf", "dürfen")),
)

THE = Determiner("the", "der", "definite", plural=False)
THE_PLURAL = Determiner("the", "der", "definite", plural=True)
POSSESSIVES: tuple[Determiner, ...] = tuple(
    Determiner(english, german, "ein", plural)
    for english, german in (("my", "mein"), ("our", "unser"), ("his", "sein"), ("her", "ihr"))
    for plural in (False, True)
)
DETERMINERS: tuple[Determiner, ...] = (
    THE,
    THE_PLURAL,
    Determiner("a", "ein", "ein", plural=False),
    Determiner("this", "dies", "der", plural=False),
    Determiner("these", "dies", "der", plural=True),
    Determiner("every", "jed", "der", plural=False),
    Determiner("some", "einig", "viel", plural=True),
    Determiner("many", "viel", "viel", plural=True),
    Determiner("two", "zwei", "none", plural=True),
    Determiner("three", "drei", "none", plural=True),
    *POSSESSIVES,
)

HE = Pronoun("he", "er", Agreement.THIRD)
SHE = Pronoun("she", "sie", Agreement.THIRD)
THEY = Pronoun("they", "sie", Agreement.PLURAL)
PRONOUNS: tuple[Pronoun, ...] = (
    Pronoun("I", "ich", Agreement.FIRST),
    HE,
    SHE,
    Pronoun("we", "wir", Agreement.PLURAL),
    THEY,
)


def _parse_adverbials(time: Time, table: str) -> list[Adverbial]:
    return [Adverbial(english, german, time) for english, german in _parse_rows(table)]


ADVERBIALS: tuple[Adverbial, ...] = (
    *_parse_adverbials(
        Time.PRESENT,
        """
        every day = jeden Tag
        every morning = jeden Morgen
        every evening = jeden Abend
        often = oft
        sometimes = manchmal
        usually = normalerweise
        in summer = im Sommer
        in winter = im Winter
        """,
    ),
    *_parse_adverbials(
        Time.PAST,
        """
        yesterday = gestern
        last week = letzte Woche
        last year = letztes Jahr
        three days ago = vor drei Tagen
        a month ago = vor einem Monat
        recently = neulich
        """,
    ),
    *_parse_adverbials(
        Time.FUTURE,
        """
        tomorrow = morgen
        next week = nächste Woche
        next year = nächstes Jahr
        soon = bald
        later = später
        """,
    ),
)

BECAUSE = Conjunction("because", "weil")
ALTHOUGH = Conjunction("although", "obwohl")
WHEN = Conjunction("when", "wenn")
BEFORE = Conjunction("before", "bevor")
WHILE = Conjunction("while", "während")
_THAT = Conjunction("that", "dass")
_WHETHER = Conjunction("whether", "ob")
CONJUNCTIONS: tuple[Conjunction, ...] = (BECAUSE, ALTHOUGH, WHEN, BEFORE, WHILE, _THAT, _WHETHER)

OPINIONS: tuple[Opinion, ...] = (
    Opinion("know", _THAT, "wissen", Finite("weiß", "weiß", "wissen")),
    Opinion("believe", _THAT, "glauben", Finite("glaube", "glaubt", "glauben")),
    Opinion("say", _THAT, "sagen", Finite("sage", "sagt", "sagen")),
    Opinion("hope", _THAT, "hoffen", Finite("hoffe", "hofft", "hoffen")),
    Opinion("ask", _WHETHER, "fragen", Finite("frage", "fragt", "fragen")),
)
