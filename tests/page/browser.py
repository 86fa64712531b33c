"""A headless Chromium, as the tests use it."""

import json
import time
from importlib import resources

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()

# Runs before the page's own script. Notes what the policy has blocked, and when the first row of tenants was drawn.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective, event.blockedURI));
new MutationObserver((_, observer) => {
  if (!document.querySelector("#tenants-table tbody tr")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.firstRow = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""

DESKTOP, PHONE = (1440, 1000), (360, 780)


FLAGS = [
    "headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "disable-lcd-text", "hide-scrollbars",
]


class Browser:
    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in FLAGS:
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_page_load_timeout(20)
        self.tell("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        self.tell("Network.enable")
        self.look()

    def tell(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def look(self, size=DESKTOP, scheme="light", motion="no-preference", scale=1):
        """How large the screen is, and what the system prefers."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": size == PHONE}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.tell("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in features.items()])

    def offline(self, on):
        self.tell("Network.emulateNetworkConditions", offline=on, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def open(self, url):
        """Loads the page anew, even if only what is after the # is different."""
        self.driver.get("about:blank")
        self.driver.get(url)
        # The first answer of the status.
        self.until(lambda: self.text("#connection") == "live")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, what, seconds=8):
        """Waits until `what` gives something, and gives that."""
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, f"not within {seconds} s; the page says: {self.text('main')[:2000]}"
            time.sleep(0.02)
        return found

    def round(self):
        """Asks now, as if the page had just come into sight. It would have asked within two seconds."""
        self.run("document.dispatchEvent(new Event('visibilitychange'))")

    def until_asked(self, what):
        """Waits until `what` gives something, over as many rounds of questions as it takes."""

        def found():
            self.round()
            return what()

        return self.until(found)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector).replace("\xa0", " ")

    def texts(self, selector):
        """The whole text of each, with what CSS cuts."""
        script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
        return [text.replace("\xa0", " ") for text in self.run(script, selector)]

    def shows(self, selector):
        return self.run("return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector)

    def click(self, selector):
        self.find(selector).click()

    def keys(self, *keys):
        """Types, wherever the focus is."""
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def focus(self):
        """What has the focus, as a screen reader would name it."""
        return self.run("return document.activeElement.id || document.activeElement.textContent.trim()")

    def hash(self):
        return self.run("return location.hash")

    def rows(self):
        """The IDs in the table of tenants."""
        return self.texts("#tenants-table tbody td.name a")

    def problems(self, rules=()):
        """What axe finds by these rules, or by all of its rules."""
        if not self.run("return typeof axe === 'object'"):
            self.run(AXE)
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        script = "axe.run(document, arguments[0]).then((found) => arguments[1](found.violations))"
        found = self.driver.execute_async_script(script, options)
        return [
            f"{each['impact']}: {each['id']}: {json.dumps([node['html'][:200] for node in each['nodes'][:3]])}"
            for each in found
        ]

    def too_wide(self):
        return self.run("return document.documentElement.scrollWidth > innerWidth")

    def assert_unharmed(self):
        """No text from outside ran as a script or became an element, and the policy had nothing to block."""
        assert self.run("return window.harmed") is None
        assert self.run("return window.violations") == []
        foreign = "main img, main script, main b b, [style], [onclick]"
        assert self.run("return document.querySelectorAll(arguments[0]).length", foreign) == 0

    def screenshot(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))
