"""The web page works in a real browser: answers, streaming, errors, keyboard, themes, and the API reference."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.ui import Select, WebDriverWait

from ragweave import KnowledgeBase, RagPipeline
from ragweave.pipeline.loading import with_knowledge_base
from ragweave.serving.settings import KeyRing, ServingSettings
from tests.browser.conftest import HOSTILE, Paced
from tests.support.browsing import show
from tests.support.encoders import load_tiny_encoder
from tests.support.pipelines import build_knowledge_base
from tests.support.serving import KEY, Running, served
from tests.support.waiting import PATIENCE

QUESTION = "Where is Lima?"
CONTRAST = Path(__file__).parent / "contrast.js"


class Page:
    """What a user sees and does."""

    def __init__(self, driver, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, **fragment: str) -> None:
        self.driver.get("about:blank")  # a change of the fragment alone does not reload
        self.driver.get(self.url + (f"/#{urlencode(fragment)}" if fragment else "/"))
        self.until(lambda: "version" in self.one("#base").text or self.one("#key-line").is_displayed())

    def open_afresh(self, script: str = "") -> None:
        """Open the page as somebody who never saw it, or whose storage a script has filled."""
        self.driver.get(f"{self.url}/healthz")  # which has the page's storage, and nothing to load
        self.driver.execute_script(f"localStorage.clear(); sessionStorage.clear(); {script}")
        self.open()

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def until(self, holds):
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: holds())

    def ask(self, question: str = QUESTION) -> None:
        self.type(question + Keys.ENTER)

    def type(self, text: str) -> None:
        box = self.one("#question")
        box.clear()
        box.send_keys(text)

    def answered(self, results: int = 1) -> None:
        self.until(lambda: len(self.all('.result[aria-busy="false"]')) == results and self.all(".token"))

    def tokens(self):
        return self.all(".token")


@pytest.fixture
def page(browser, server: Running, pipeline: Paced) -> Page:
    pipeline.tokens = None
    show(browser)
    page = Page(browser, server.url)
    page.open_afresh("localStorage.setItem('ragweave-expert', '1')")
    browser.get_log("browser")
    browser.get_log("performance")
    return page


def test_an_answer_with_its_passages(page: Page, pipeline: Paced):
    page.ask()
    page.answered()
    answer = pipeline(QUESTION, n_docs=2)
    assert page.one(".answer").text == answer.answer
    expected = sorted(answer.passages, key=lambda passage: -passage.prior)
    assert page.texts(".passage .title") == [passage.title or passage.id for passage in expected]
    assert page.texts(".prior-figure") == [f"{passage.prior:.3f}" for passage in expected]
    assert page.texts(".posterior-figure") == [f"{passage.posterior:.3f}" for passage in expected]
    words = [token for token in answer.tokens if token.text.strip()]
    assert page.texts(".token") == [token.text.strip() for token in words]
    positions = [expected.index(answer.passages[token.passage]) for token in words]
    assert all(
        f"passage-{position}" in button.get_attribute("class")
        for button, position in zip(page.tokens(), positions, strict=True)
    )
    for support in {token.support for token in answer.tokens if token.support is not None}:
        text = getattr(answer.passages[support.passage], support.field)
        assert any(text[support.start : support.end] in mark for mark in page.texts("mark"))
    assert page.one("#base").text == "2 documents, 2 passages, version 000001"
    assert "Answered in" in page.one("#status").text


def test_a_follow_up_is_answered_in_the_conversation(page: Page, pipeline: Paced, monkeypatch):
    monkeypatch.setattr(pipeline.model.config, "rewrite_prefix", "Conversation: ")
    page.ask()
    page.answered()
    first = page.one(".answer").text
    follow_up = "And what runs through it?"
    conversation = pipeline.chat()
    conversation.turns = [(QUESTION, first)]
    searched = conversation.standalone(follow_up)
    page.ask(follow_up)
    page.until(lambda: page.texts("#turns .asked") == [QUESTION])
    page.answered()
    assert page.texts("#turns .said") == [first]
    assert page.one(".searched").is_displayed() == (searched != follow_up)
    assert page.one(".searched").get_attribute("textContent") == f"Searched for: {searched}"
    page.one("#new").click()
    assert not page.one("#conversation").is_displayed()
    assert not page.all(".result")
    page.ask(follow_up)
    page.answered()
    assert not page.one(".searched").is_displayed()
    assert page.one(".searched").get_attribute("textContent") == f"Searched for: {follow_up}"


def test_the_answer_streams_in_and_can_be_stopped(page: Page, pipeline: Paced):
    pipeline.tokens = threading.Semaphore(0)
    page.ask()
    page.until(lambda: len(page.all(".passage")) == 2)  # before the first token
    assert page.one(".result").get_attribute("aria-busy") == "true"
    assert page.one("#status").text == "Searching and answering …"
    whole = pipeline.__class__(pipeline.model, pipeline.retriever, pipeline.encoder, extractive=True)(
        QUESTION
    )
    assert page.one(".answer").text == ""

    def next_token() -> str:
        pipeline.tokens.release()
        return page.one(".answer").text

    page.until(next_token)
    assert whole.answer.startswith(page.one(".answer").text)
    assert not page.tokens()
    page.one("#stop").click()
    page.until(lambda: page.one("#status").text == "Stopped.")
    assert page.one(".result").get_attribute("aria-busy") == "false"
    pipeline.tokens.release(100)


def test_hovering_over_a_token_shows_its_posteriors(page: Page, pipeline: Paced):
    page.ask()
    page.answered()
    answer = pipeline(QUESTION, n_docs=2)
    order = sorted(range(2), key=lambda i: -answer.passages[i].prior)
    words = [token for token in answer.tokens if token.text.strip()]
    for button, token in zip(page.tokens(), words, strict=True):
        ActionChains(page.driver).move_to_element(button).perform()
        page.until(lambda token=token: f"“{token.text.strip()}”" in page.one(".detail-title").text)
        assert page.texts(".bars .figure") == [f"{token.posteriors[i]:.3f}" for i in order]
        assert len(page.all("mark.shown")) == (token.support is not None)
        label = button.get_attribute("aria-label")
        assert label.endswith(f"{max(token.posteriors):.3f}")


def test_keyboard(page: Page):
    page.ask()
    page.answered()
    for button in page.all(".token"):
        page.driver.execute_script("arguments[0].classList.remove('shown')", button)
    for _ in range(12):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        active = page.driver.switch_to.active_element
        if active.get_attribute("class").startswith("token"):
            break
    assert active.get_attribute("class").startswith("token")
    assert "shown" in active.get_attribute("class")
    outline = page.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", active)
    assert outline == "solid"


def test_formulations_alone_and_side_by_side(page: Page, pipeline: Paced):
    for formulation, name in (("sequence", "RAG-Sequence"), ("token", "RAG-Token")):
        Select(page.one("#formulation")).select_by_value(formulation)
        page.ask()
        page.until(lambda name=name: page.texts(".name") == [name])
        page.answered()
        assert page.one(".answer").text == pipeline.with_formulation(formulation)(QUESTION).answer
    Select(page.one("#formulation")).select_by_value("all")
    page.ask()
    page.answered(4)
    assert page.texts(".name") == ["RAG-Token", "RAG-Sequence", "One prompt of all passages", "PCED"]
    first, second, *_ = page.all(".result")
    assert first.location["y"] == second.location["y"]
    assert first.location["x"] < second.location["x"]


def test_errors_are_shown(page: Page):
    page.ask("Lima " * 200)
    page.until(lambda: page.one("#error").is_displayed())
    assert "the encoder reads" in page.one("#error").text
    assert page.one("#error").get_attribute("role") == "alert"
    assert not page.all(".result")
    page.ask()
    page.answered()
    assert not page.one("#error").is_displayed()


def test_unreachable_service(browser, pipeline: Paced):
    pipeline.tokens = None
    with served(pipeline) as running:
        page = Page(browser, running.url)
        page.open()
    page.ask()
    page.until(lambda: page.one("#error").is_displayed())
    assert "cannot be reached" in page.one("#error").text


def test_html_in_documents_is_shown_as_text(page: Page):
    page.ask("Where does the llama of ulm live?")
    page.answered()
    assert "<script>alert(1)</script>" in page.texts(".passage .title")
    assert any(HOSTILE in text for text in page.texts(".passage .text"))
    assert page.driver.title == "ragweave"
    assert not page.all("main b, main img, main script")


def test_no_external_requests_and_no_console_messages(page: Page, server: Running):
    page.open()
    page.ask()
    page.answered()
    assert page.driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = [
        entry["params"]["request"]["url"]
        for entry in messages
        if entry["method"] == "Network.requestWillBeSent"
    ]
    assert len(urls) > 4
    hosts = {urlsplit(url).netloc for url in urls if not url.startswith(("about:", "data:"))}
    assert hosts == {urlsplit(server.url).netloc}


def test_links_and_history(page: Page):
    Select(page.one("#formulation")).select_by_value("sequence")
    page.one("#n_docs").clear()
    page.one("#n_docs").send_keys("1")
    page.ask()
    page.answered()
    link = page.driver.current_url
    page.open()
    assert page.texts("#questions button") == [QUESTION]
    page.driver.get("about:blank")
    page.driver.get(link)
    page.answered()
    assert page.texts(".name") == ["RAG-Sequence"]
    assert len(page.all(".passage")) == 1
    assert page.one("#question").get_attribute("value") == QUESTION
    page.open()
    page.one("#questions button").click()
    page.answered()
    assert page.texts(".name") == ["RAG-Sequence"]
    page.one("#forget").click()
    page.open()
    assert not page.one("#history").is_displayed()


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1280)])
def test_themes_and_narrow_screens(page: Page, theme: str, width: int):
    show(page.driver, theme=theme, width=width, height=844)
    Select(page.one("#formulation")).select_by_value("all")
    page.ask()
    page.answered(4)
    script = "return [document.documentElement.scrollWidth, innerWidth]"
    wide, room = page.driver.execute_script(script)
    assert wide <= room == width
    assert page.driver.execute_script(CONTRAST.read_text("utf-8")) >= 4.5
    first, second, *_ = page.all(".result")
    assert (first.location["y"] < second.location["y"]) == (width == 390)


def test_api_reference(page: Page, server: Running):
    page.driver.get(f"{server.url}/docs")
    page.until(lambda: page.all("#endpoints section"))
    titles = page.texts("#endpoints h2")
    paths = server.app.openapi()["paths"]
    assert titles == [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    page.all("#endpoints summary")[0].click()
    assert "question" in page.one("#endpoints details[open]").text
    assert page.driver.get_log("browser") == []


def test_key_prompt(browser, pipeline: Paced):
    pipeline.tokens = None
    with served(pipeline, ServingSettings(keys=KeyRing([KEY]))) as running:
        page = Page(browser, running.url)
        page.open()
        assert page.one("#key-line").is_displayed()
        page.one("#key").send_keys(KEY + Keys.TAB)
        page.until(lambda: "version" in page.one("#base").text)
        page.ask()
        page.answered()
        assert KEY not in page.driver.current_url


def test_the_source_of_a_passage_opens_at_the_passage(
    browser, tmp_path: Path, tiny_encoder_path: Path, model_path: Path
):
    path = tmp_path / "handbook.txt"
    path.write_text("\n\n".join(f"Rule {n} says that ulm needs {n} llamas. " * 9 for n in range(40)))
    base = KnowledgeBase.build([path], tmp_path / "kb", encoder=load_tiny_encoder(tiny_encoder_path))
    pipeline = RagPipeline.from_pretrained(model_path, knowledge_base=base, dtype="float32")
    show(browser)
    with served(pipeline, ServingSettings(keys=KeyRing([KEY]))) as running:
        page = Page(browser, running.url)
        page.open_afresh()
        page.one("#key").send_keys(KEY + Keys.TAB)
        page.until(lambda: "version" in page.one("#base").text)
        page.ask("Which rule needs 33 llamas?")
        page.answered()
        link, text = page.all(".passage .source")[-1], page.texts(".passage .text")[-1]
        place = link.text
        assert place.startswith("handbook.txt, line ")
        first, link_to = browser.current_window_handle, link.get_attribute("href")
        link.click()
        (second,) = set(browser.window_handles) - {first}
        browser.switch_to.window(second)
        try:
            # The new tab has the key of the first.
            page.until(lambda: page.all("#passage"))
            assert page.one("#passage").text == text
            assert page.one("header p").text == place
            top = browser.execute_script(
                "return document.getElementById('passage').getBoundingClientRect().top"
            )
            assert 0 <= top < 900
            # Another browser is asked for it.
            browser.execute_script("sessionStorage.clear()")
            browser.get("about:blank")
            browser.get(link_to)
            page.one("#key").send_keys("a-wrong-key-of-nobody" + Keys.ENTER)
            page.until(lambda: "not valid" in page.one("#error").text)
            assert not page.all("#passage")
            page.one("#key").clear()
            page.one("#key").send_keys(KEY + Keys.ENTER)
            page.until(lambda: page.all("#passage"))
            assert page.one("#passage").text == text
            assert not [
                entry for entry in browser.get_log("browser") if "Content Security" in entry["message"]
            ]
        finally:
            browser.close()
            browser.switch_to.window(first)


@pytest.fixture
def island(browser, tmp_path: Path, tiny_encoder_path: Path, model_path: Path) -> Iterator[Page]:
    """A service whose documents everybody may change, with Markdown, and a second knowledge base."""
    encoder = load_tiny_encoder(tiny_encoder_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "ferry.md").write_text(MARKDOWN)
    (tmp_path / "notes" / "peru.txt").write_text("Lima is the capital of Peru.")
    base = KnowledgeBase.build([tmp_path / "notes"], tmp_path / "kb", encoder=encoder)
    (tmp_path / "ulm.txt").write_text("The llama of ulm is called Berta.")
    other = KnowledgeBase.build([tmp_path / "ulm.txt"], tmp_path / "other", encoder=encoder)
    pipeline = RagPipeline.from_pretrained(model_path, knowledge_base=base, dtype="float32")
    pipelines = {"island": pipeline, "animals": with_knowledge_base(pipeline, other)}
    show(browser)
    with served(pipelines, ServingSettings(open_changes=True, refresh_seconds=0)) as running:
        page = Page(browser, running.url)
        page.open_afresh()
        browser.get_log("browser")
        yield page
        errors = [entry for entry in browser.get_log("browser") if "status of 4" not in entry["message"]]
        assert errors == []


MARKDOWN = """# The ferry

The ferry **Terna** sails to [Bergvik](javascript:alert(1)) at *noon*. <b onclick="alert(1)">No</b> 🦙🦙

| Leaves | Arrives |
|-|-|
| 7:15 | 7:50 |

- Dogs travel free.
"""


def test_a_user_sees_no_figures_unless_they_ask(island: Page):
    first = island.one("form").text.split("\n")[0]
    assert first == "Question"
    assert not island.one("#formulation").is_displayed()
    island.ask()
    island.until(lambda: island.all('.result[aria-busy="false"] .token'))
    assert island.one(".answer").text
    assert all(token.tag_name == "span" for token in island.tokens())
    shown = [element for element in island.all(".expert") if element.is_displayed()]
    assert shown == []
    assert "p(z" not in island.one("main").text
    island.one("#expert").click()
    assert island.one(".legend").is_displayed()
    assert all(token.tag_name == "button" for token in island.tokens())
    island.open()
    assert island.one("#formulation").is_displayed()
    island.one("#expert").click()
    island.open()
    assert not island.one("#formulation").is_displayed()


def test_markdown_is_shown_as_such_and_html_as_text(island: Page):
    island.ask("When does the ferry sail?")
    island.answered()
    passage = next(one for one in island.all(".passage") if "ferry.md" in one.text)

    def texts(selector: str) -> list[str]:
        return [element.text for element in passage.find_elements(By.CSS_SELECTOR, f".text {selector}")]

    assert texts(".heading") == []  # the title says the same
    assert passage.text.count("The ferry") == 2
    assert texts("strong") == ["Terna"]
    assert texts("em") == ["noon"]
    assert texts("th") == ["Leaves", "Arrives"]
    assert texts("td") == ["7:15", "7:50"]
    assert texts(".item") == ["- Dogs travel free."]
    assert texts("a, b, script") == []
    assert 'sails to Bergvik at noon. <b onclick="alert(1)">No</b> 🦙🦙' in passage.text
    words = [mark.text for mark in passage.find_elements(By.CSS_SELECTOR, "mark")]
    assert all(word in MARKDOWN.replace("**", "") for word in words)
    link = passage.find_element(By.CSS_SELECTOR, ".source").get_attribute("href")
    island.driver.get(link)
    island.until(lambda: island.all("table td"))
    assert island.texts("td mark") == ["7:15", "7:50"]
    assert island.one("body").text.count("The ferry\n") == 1
    assert "kb=island" in link
    assert not island.all("main b, main a[href^=javascript]")


def documents(page: Page) -> list[str]:
    script = "return [...document.querySelectorAll('#sources a')].map((link) => link.textContent)"
    return page.driver.execute_script(script)  # at once, because the list is made anew


def press(page: Page, label: str) -> None:
    # At once, because the list is made anew.
    script = "setTimeout(() => document.querySelector(`[aria-label='${arguments[0]}']`).click())"
    page.driver.execute_script(script, label)
    if label.startswith("Delete"):
        page.until(lambda: alert_is_present()(page.driver))


def test_documents_are_listed_uploaded_and_deleted(island: Page, tmp_path: Path):
    island.one("#documents summary").click()
    island.until(lambda: documents(island) == ["ferry.md", "peru.txt"])
    files = [tmp_path / "new.txt", tmp_path / "picture.png"]
    files[0].write_text("The quay is long.")
    files[1].write_bytes(b"\x89PNG")
    island.one("#files").send_keys("\n".join(map(str, files)))
    island.until(lambda: documents(island) == ["ferry.md", "new.txt", "peru.txt"])
    island.until(lambda: "kind .png" in island.one("#uploads").text)
    assert island.texts("#uploads .name") == ["picture.png"]
    assert island.one("#base").text.startswith("3 documents")
    script = (
        "return [...document.querySelectorAll('#sources button:not([hidden])')].map((one) => one.ariaLabel)"
    )
    assert island.driver.execute_script(script) == [
        "Read ferry.md again", "Delete ferry.md", "Delete new.txt", "Read peru.txt again", "Delete peru.txt",
    ]  # fmt: skip
    (tmp_path / "notes" / "peru.txt").write_text("Lima is the capital of Peru, and Callao its port.")
    press(island, "Read peru.txt again")
    island.until(lambda: island.one("#status").text == "peru.txt was read again.")
    island.until(lambda: "version 000003" in island.one("#base").text)
    island.one("#search").send_keys("new")
    island.until(lambda: documents(island) == ["new.txt"])
    press(island, "Delete new.txt")
    island.driver.switch_to.alert.dismiss()
    press(island, "Delete new.txt")
    island.driver.switch_to.alert.accept()
    island.until(lambda: island.one("#more").text == "None.")
    assert island.one("#status").text == "new.txt was deleted."
    island.one("#search").clear()
    island.one("#search").send_keys("e")
    island.until(lambda: documents(island) == ["ferry.md", "peru.txt"])
    island.driver.get(island.all("#sources a")[1].get_attribute("href"))
    assert "Callao" in island.one("main").text


def test_files_are_dropped(island: Page):
    script = """const transfer = new DataTransfer();
    transfer.items.add(new File([arguments[0]], "dropped.txt"));
    for (const [where, name] of [[window, "dragenter"], [arguments[1], "dragover"], [arguments[1], "drop"]])
      where.dispatchEvent(new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true }));"""
    island.driver.execute_script(script, "Dropped words.", island.one("#drop"))
    island.until(lambda: "dropped.txt" in documents(island))
    assert island.one("#documents").get_attribute("open")
    assert not island.all("#uploads li")


def test_a_withheld_answer_has_no_sources(island: Page):
    script = """const real = window.fetch;
    window.fetch = (url, options) => real(url, options.body
      ? { ...options, body: JSON.stringify({ ...JSON.parse(options.body), min_confidence: 1 }) } : options);"""
    island.driver.execute_script(script)
    island.ask()
    island.until(lambda: island.all('.result[aria-busy="false"]'))
    assert island.one(".answer").text == "The documents do not say."
    assert island.one(".passage-column h3").text == "Nearest passages"
    assert not island.one(".guess").is_displayed()
    assert island.one(".guess").get_attribute("textContent").startswith(" Best guess: ")


def test_one_of_several_knowledge_bases(island: Page):
    assert [option.text for option in Select(island.one("#kb")).options] == ["island", "animals"]
    Select(island.one("#kb")).select_by_visible_text("animals")
    island.until(lambda: island.one("#base").text.startswith("1 document,"))
    island.ask("How is the llama called?")
    island.answered()
    assert [text.split(",")[0] for text in island.texts(".source")] == ["ulm.txt"]
    link = island.driver.current_url
    island.open()
    assert Select(island.one("#kb")).first_selected_option.text == "island"
    island.driver.get("about:blank")
    island.driver.get(link)
    island.answered()
    assert Select(island.one("#kb")).first_selected_option.text == "animals"
    assert [text.split(",")[0] for text in island.texts(".source")] == ["ulm.txt"]


def test_changes_need_the_admin_key(browser, tmp_path: Path, tiny_encoder_path: Path, model_path: Path):
    base = build_knowledge_base(tmp_path, tiny_encoder_path)
    pipeline = RagPipeline.from_pretrained(model_path, knowledge_base=base, dtype="float32")
    show(browser)
    with served(pipeline, ServingSettings(admin_keys=KeyRing([KEY]))) as running:
        page = Page(browser, running.url)
        page.open_afresh()
        page.one("#documents summary").click()
        (tmp_path / "new.txt").write_text("New words.")
        page.one("#files").send_keys(str(tmp_path / "new.txt"))
        page.until(lambda: "requires an admin key" in page.one("#uploads").text)
        page.one("#key").send_keys(KEY)
        page.one("#files").send_keys(str(tmp_path / "new.txt"))
        page.until(lambda: "new.txt" in documents(page))


def test_nobody_is_offered_what_they_may_not_do(page: Page):
    page.one("#documents summary").click()
    page.until(lambda: documents(page) == ["hostile.jsonl", "peru.txt"])
    assert not page.one("#drop").is_displayed()
    assert not [button for button in page.all("#sources button") if button.is_displayed()]
