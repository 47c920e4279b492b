//! A real browser, driven over its own pipe: Chromium, as Debian packages it (`scripts/test-env need chromium chromium`).
//!
//! The protocol is JSON with a zero byte behind each message, so all it takes is two named pipes. The clients that there are
//! would cost minutes of compiling for the dozen commands that are used here.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Enough for any answer, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Names of the program, in the order in which they are tried.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// One page of a browser of its own. Dropped, the browser ends.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    next: u64,
    session: String,
    complaints: Vec<String>,
    /// The machine's interfaces changed, at which a browser gives up what it is loading.
    interrupted: bool,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts one. Panics, and says how to get one, where there is none.
    pub(crate) fn start() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = PROGRAMS.iter().flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)));
        let program = found.into_iter().find(|program| program.exists());
        let program = program.unwrap_or_else(|| panic!("no browser: run `scripts/test-env need chromium chromium`"));
        let folder = tempfile::tempdir().unwrap();
        let [to, from] = ["to", "from"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        let mut command = Command::new("sh");
        // File descriptors 3 and 4 are the pipe.
        command.args(["-c", "exec \"$@\" 3<\"$TO\" 4>\"$FROM\"", "sh"]).arg(program);
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]);
        command.args(["--remote-debugging-pipe", "--no-first-run", "--disable-background-networking", "--lang=en-US"]);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display())).arg("about:blank");
        command.env("TO", &to).env("FROM", &from).env("TZ", "UTC");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Open for both directions, so that opening does not wait for a browser that does not come.
        let to = OpenOptions::new().read(true).write(true).open(to).unwrap();
        let mut browser = Self {
            child,
            to,
            from: messages(&from),
            next: 0,
            session: String::new(),
            complaints: Vec::new(),
            interrupted: false,
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// A command of the protocol, and its answer.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(&[message.to_string().as_bytes(), b"\0"].concat()).unwrap();
        loop {
            let answer =
                self.from.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("the browser does not answer {method}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    /// Keeps what the console would show in red.
    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        // Another test's container came or went.
        if parameters["entry"]["text"].as_str().is_some_and(|text| text.ends_with("net::ERR_NETWORK_CHANGED")) {
            self.interrupted = true;
            return;
        }
        let bad = match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert")),
            "Log.entryAdded" => matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        if bad {
            self.complaints.push(parameters.to_string());
        }
    }

    /// What went wrong in the page since the last question: errors, and what its policy kept it from.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // An answer comes after all events before it.
        self.call("Runtime.evaluate", &json!({"expression": "0"}));
        std::mem::take(&mut self.complaints)
    }

    /// Goes to an address, and waits until `shown` holds there.
    pub(crate) fn open(&mut self, address: &str, shown: &str) {
        let end = Instant::now() + LIMIT;
        self.interrupted = false;
        self.call("Page.navigate", &json!({"url": address}));
        while !self.holds(shown) {
            if std::mem::take(&mut self.interrupted) {
                // To navigate to where one is already loads nothing.
                self.call("Page.reload", &json!({}));
            }
            self.look_again(shown, end);
        }
    }

    /// The value of an expression; a promise is waited for.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// The same as text.
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Waits until an expression is true. What fails while a page loads is not true yet.
    pub(crate) fn wait(&mut self, expression: &str) {
        let end = Instant::now() + LIMIT;
        while !self.holds(expression) {
            self.look_again(expression, end);
        }
    }

    fn holds(&mut self, expression: &str) -> bool {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        self.call("Runtime.evaluate", &asked)["result"]["value"] == true
    }

    fn look_again(&mut self, expression: &str, end: Instant) {
        if Instant::now() > end {
            let text = self.text("document.body.innerText");
            panic!("waited in vain for {expression}: {:?}\n{text}", self.complaints);
        }
        thread::sleep(LOOK);
    }

    /// A click with the mouse into the middle of the first element that fits, which is scrolled to.
    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.value(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": button, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// A key, by its name: `Tab`, `Enter`, `Space`.
    pub(crate) fn key(&mut self, name: &str) {
        let (key, code, text) = match name {
            "Enter" => ("Enter", 13, "\r"),
            "Space" => (" ", 32, " "),
            _ => (name, 9, ""),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": name, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Sets the size of the window, and what the system prefers: `light` or `dark`.
    pub(crate) fn look(&mut self, (width, height): (u32, u32), theme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// A picture of the window, as PNG, and how many colours it has.
    pub(crate) fn picture(&mut self) -> (Vec<u8>, u64) {
        // Two frames: the last change is drawn.
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))");
        let data = self.call("Page.captureScreenshot", &json!({"format": "png"}))["data"].as_str().unwrap().to_owned();
        let colours = self.value(&format!(
            "(async () => {{ const image = new Image(); image.src = 'data:image/png;base64,{data}'; await image.decode(); \
             const canvas = new OffscreenCanvas(image.width, image.height); const context = canvas.getContext('2d'); \
             context.drawImage(image, 0, 0); const {{ data }} = context.getImageData(0, 0, image.width, image.height); \
             return new Set(new Uint32Array(data.buffer)).size; }})()"
        ));
        (BASE64_STANDARD.decode(data).unwrap(), colours.as_u64().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes out of the pipe, until it is closed.
fn messages(pipe: &Path) -> Receiver<Value> {
    let (sender, receiver) = channel();
    let pipe = pipe.to_owned();
    thread::spawn(move || {
        let Ok(pipe) = File::open(pipe) else { return };
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let Ok(message) = serde_json::from_slice(&message) else { continue };
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}
