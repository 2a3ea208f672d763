"""The web page in headless Chromium."""

import socket

import pytest

from nmt.server.app import make_server
from nmt.server.limits import Limits
from nmt.translators.checks import CUT_OFF
from nmt.translators.model import ModelTranslator
from tests.exported_model import SENTENCES
from tests.server.browser import ARGUMENTS, CHROMIUM, served, shading
from tests.server.server_fakes import FakeTranslator, make_fake

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
expect = playwright.expect

FIELD, WORDS, SOURCE_WORDS = "#text", "#translation .word", "#mirror .word"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address():
    server = make_fake(max_characters=2000)
    with served(server) as address:
        yield address
    server.batcher.close(5)


@pytest.fixture
def open_page(browser):
    """Opens the page, and fails the test if there are errors, console messages or requests to other hosts."""
    contexts, complaints, hosts = [], [], set()

    def open_at(address, **settings):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 700}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(address)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert [words for words in complaints if "Failed to load resource" not in words] == []
    assert all(host.startswith("127.0.0.1:") for host in hosts)


@pytest.fixture
def page(open_page, address):
    return open_page(address)


def test_a_text_is_translated_when_typing_pauses(page):
    expect(page).to_have_title("English to German")
    expect(page.locator(FIELD)).to_be_focused()
    page.keyboard.type("the old", delay=5)
    expect(page.locator("#translation")).to_have_text("THE OLD")
    page.keyboard.type(" house\nis red", delay=5)
    expect(page.locator("#translation")).to_have_text("THE OLD HOUSE\nIS RED", use_inner_text=True)
    expect(page.locator("#announcement")).to_have_text("THE OLD HOUSE IS RED")
    page.locator(FIELD).fill("")
    expect(page.locator("#translation")).to_be_empty()
    expect(page.locator("#alternatives")).to_be_hidden()


def test_a_word_shows_what_it_attended_to_and_the_other_way_round(page):
    page.locator(FIELD).fill("the 🙂 house")  # JavaScript counts the emoji as two characters
    page.locator(WORDS).nth(1).hover()
    assert shading(page.locator(SOURCE_WORDS)) == [0, 0.75, 0.25]
    expect(page.locator("#attention")).to_have_text("“🙂” attended to “🙂” 75 %, “house” 25 %")
    page.locator("h1").hover()
    assert shading(page.locator(SOURCE_WORDS)) == [0, 0, 0]
    page.locator(SOURCE_WORDS).nth(2).hover(force=True)
    assert shading(page.locator(WORDS)) == [0, 0.25, 1]
    expect(page.locator("#attention")).to_have_text("“house” received attention from “HOUSE” 100 %, “🙂” 25 %")


def test_the_mirrored_words_lie_under_those_of_the_field(page):
    """Otherwise the wrong words would be shaded. Their lines break as those of the field do."""
    page.locator(FIELD).fill("one two three four five six seven eight nine " * 5 + "\n\nlast\n")
    expect(page.locator(WORDS)).to_have_count(46)
    size = "element => [element.scrollHeight, element.clientWidth]"
    assert page.locator("#mirror").evaluate(size) == page.locator(FIELD).evaluate(size)
    styles = "e => ['font', 'lineHeight', 'letterSpacing', 'whiteSpace', 'padding'].map(k => getComputedStyle(e)[k])"
    assert page.locator("#mirror").evaluate(styles) == page.locator(FIELD).evaluate(styles)


def test_the_keyboard_reaches_everything(page):
    page.keyboard.type("one two three", delay=5)
    expect(page.locator(WORDS)).to_have_count(3)
    page.keyboard.press("Tab")  # to the copy button
    if page.locator("#copy").is_visible():
        page.keyboard.press("Tab")
    expect(page.locator(WORDS).nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(WORDS).nth(1)).to_be_focused()
    assert shading(page.locator(SOURCE_WORDS)) == [0, 0.75, 0.25]
    page.keyboard.press("End")
    expect(page.locator(WORDS).nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(WORDS).nth(2)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Tab")
    assert shading(page.locator(SOURCE_WORDS)) == [0, 0, 1]  # because the word is pinned
    expect(page.get_by_role("button", name="ONE TWO THREE2")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#translation")).to_have_text("ONE TWO THREE2")
    expect(page.get_by_role("button", name="ONE TWO THREE", exact=True)).to_be_focused()
    page.locator(FIELD).focus()
    page.keyboard.press("Home")
    assert shading(page.locator(WORDS)) == [0.75, 0, 0]
    page.locator(WORDS).nth(0).focus()
    page.keyboard.press("Escape")
    expect(page.locator(FIELD)).to_be_focused()


def test_a_translation_that_was_cut_off_is_reported(page):
    page.locator(FIELD).fill("endless")
    expect(page.locator("#message")).to_have_text(CUT_OFF.message)
    page.locator(FIELD).fill("an end")
    expect(page.locator("#translation")).to_have_text("AN END")
    expect(page.locator("#message")).to_be_empty()


def test_sentences_with_little_confidence_are_marked(page):
    page.locator(FIELD).fill("doubt it\ndoubt")
    expect(page.locator("#translation .doubtful")).to_have_count(3)
    expect(page.locator("#message")).to_have_text("The model is unsure of what is underlined with dots.")
    page.locator(FIELD).fill("sure")
    expect(page.locator("#translation")).to_have_text("SURE")
    expect(page.locator(".doubtful")).to_have_count(0)
    expect(page.locator("#message")).to_be_empty()


def test_a_script_in_the_text_is_text(page):
    text = "<img src=x onerror=alert(1)> <script>alert(2)</script> <b>bold</b>"
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.locator(FIELD).fill(text)
    expect(page.locator("#translation")).to_have_text(text.upper())
    expect(page.locator("#alternatives button").first).to_have_text(text.upper() + "2")
    assert page.locator("main img, main script, main b").count() == 0


def test_a_long_text_is_translated_and_one_too_long_is_not_sent(page):
    long = "\n".join(["A sentence of some words. And another one."] * 45)
    page.locator(FIELD).fill(long)
    expect(page.locator("#translation")).to_have_text(long.upper(), use_inner_text=True)
    expect(page.locator("#count")).to_have_text("1,934 of 2,000 characters")
    page.locator(WORDS).last.hover()
    assert shading(page.locator(SOURCE_WORDS))[-2:] == [0, 1]
    page.locator(SOURCE_WORDS).last.hover(force=True)
    assert shading(page.locator(WORDS))[-3:] == [0, 0.25, 1]
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.locator(FIELD).fill(long + long)
    expect(page.locator("#notice")).to_contain_text("This text has 3,868 characters. The server accepts at most 2,000.")
    page.wait_for_timeout(600)
    assert sent == []


def test_an_unreachable_server_is_reported_and_retried(open_page):
    server = make_fake()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(server, port) as address:
        page = open_page(address)
        expect(page).to_have_title("English to German")
    page.locator(FIELD).fill("still here")
    expect(page.locator("#notice")).to_contain_text("The server does not respond. Your text is kept.")
    expect(page.locator(FIELD)).to_have_value("still here")
    with served(server, port):
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#translation")).to_have_text("STILL HERE")
        expect(page.locator("#message")).to_be_empty()
        expect(page.locator("#retry")).to_be_hidden()
    server.batcher.close(5)


def test_a_busy_server_is_reported_and_retried_after_the_time_it_states(page):
    answers = iter([429, 500])

    def refuse(route):
        status = next(answers, None)
        if status is None:
            return route.continue_()
        return route.fulfill(status=status, json={"error": "no"}, headers={"Retry-After": "1"})

    page.route("**/translate", refuse)
    page.locator(FIELD).fill("patience")
    expect(page.locator("#notice")).to_contain_text("The server is busy")
    expect(page.locator("#notice")).to_contain_text("Retrying in 1 s.")
    expect(page.locator("#notice")).to_contain_text("The server could not translate this text.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#translation")).to_have_text("PATIENCE")


def test_changing_the_text_cancels_the_request(open_page):
    translator = FakeTranslator()
    server = make_fake(translator, max_batch=1)
    with served(server) as address:
        page = open_page(address)
        expect(page).to_have_title("English to German")
        translator.may_go.clear()
        with page.expect_event("requestfailed") as failed:
            page.locator(FIELD).fill("old")
            expect(page.locator("#translation")).to_have_attribute("aria-busy", "true")
            page.locator(FIELD).fill("")
        assert failed.value.failure == "net::ERR_ABORTED"
        translator.may_go.set()
        page.locator(FIELD).fill("new")
        expect(page.locator("#translation")).to_have_text("NEW")
    server.batcher.close(5)


def test_a_key_is_requested_and_kept_in_memory_only(open_page):
    server = make_fake(key="s3cret")
    with served(server) as address:
        page = open_page(address)
        expect(page.get_by_label("This server requires a key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#notice")).to_contain_text("This key is not valid.")
        page.get_by_label("This server requires a key").fill("s3cret")
        page.get_by_role("button", name="Use key").click()
        expect(page.get_by_label("This server requires a key")).to_be_hidden()
        page.locator(FIELD).fill("open")
        expect(page.locator("#translation")).to_have_text("OPEN")
        assert "s3cret" not in page.content() + page.url
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    server.batcher.close(5)


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_scrolls_sideways(open_page, address, width):
    page = open_page(address, viewport={"width": width, "height": 700})
    page.locator(FIELD).fill("short words and Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüssel" * 2)
    expect(page.locator("#alternatives button").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sides = [page.locator(".side").nth(n).bounding_box() for n in (0, 1)]
    assert (sides[0]["y"] == sides[1]["y"]) == (width == 1100)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_mode_are_readable(open_page, address, scheme):
    page = open_page(address, color_scheme=scheme)
    page.locator(FIELD).fill("the old house")
    page.locator(WORDS).nth(2).hover()
    paper = luminance(page, "body", "backgroundColor")
    assert (paper > 0.5) == (scheme == "light")
    # WCAG 2.2, 1.4.3, on every background, including that of a word with all the attention.
    shaded = luminance(page, f"{SOURCE_WORDS}.nth(2)", "backgroundColor")
    ink = luminance(page, "body", "color")
    assert contrast(ink, shaded) > 4.5
    for selector in (
        "#attention",
        "#hint",
        "#model",
        "#source-language",
        "#alternatives button",
        "#alternatives .different",
    ):
        assert contrast(luminance(page, selector, "color"), paper) > 4.5, selector


def luminance(page, selector, kind):
    """Returns the relative luminance, as WCAG 2.2 defines it."""
    name, _, nth = selector.partition(".nth(")
    element = page.locator(name).nth(int(nth.rstrip(")") or 0))
    drawn = """(element, kind) => {
        const brush = document.createElement("canvas").getContext("2d");
        brush.fillStyle = getComputedStyle(element)[kind];
        brush.fillRect(0, 0, 1, 1);
        return [...brush.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    }"""
    parts = [value / 255 for value in element.evaluate(drawn, kind)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_every_control_has_a_name(page):
    """Checks the accessibility tree, which screen readers use."""
    page.locator(FIELD).fill("one two")
    expect(page.locator(WORDS)).to_have_count(2)
    expect(page.get_by_role("textbox", name="English")).to_be_visible()
    expect(page.get_by_role("group", name="German").get_by_role("button")).to_have_count(2)
    expect(page.get_by_role("region", name="Alternative translations").get_by_role("button")).to_have_count(3)
    expect(page.get_by_role("status")).to_have_count(2)
    for button in page.get_by_role("button").all():
        assert button.inner_text().strip()


def test_a_real_model(open_page, model_folder, tmp_path):
    model_folder.save(tmp_path / "model")
    translator = ModelTranslator.load(tmp_path / "model", precision="float32")
    server = make_server(translator, "tiny", Limits())
    with served(server) as address:
        page = open_page(address)
        page.set_default_timeout(60_000)
        page.locator(FIELD).fill(SENTENCES[0])
        page.locator(WORDS).first.hover()
        expect(page.locator("#translation")).to_have_text(translator.translate([SENTENCES[0]])[0])
        assert sum(shading(page.locator(SOURCE_WORDS))) == pytest.approx(1, abs=1e-3)
    server.batcher.close(5)
