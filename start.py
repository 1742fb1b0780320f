"""Set up the course and open it: python3 start.py (on Windows: py start.py)."""
# Old Pythons must be able to read this, so that they get a sentence instead of a SyntaxError.
# ruff: noqa: E402, UP031
import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("This course needs Python 3.11, 3.12 or 3.13, but this is Python %d.%d (%s). Get one "
             "at https://www.python.org/downloads/ and start with it: python3.13 start.py (on "
             "Windows: py -3.13 start.py)." % (sys.version_info[:2] + (sys.executable,)))

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
import tomllib
import urllib.request
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

ROOT = Path(__file__).absolute().parent
VENV, MINE, PROJECT = ROOT / ".venv", ROOT / "my_notebooks", ROOT / "pyproject.toml"
OLD = ROOT / ".venv.old"  # where an environment waits until its successor is whole
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP, LOG, OURS = VENV / "course.json", VENV / "setup.log", VENV / "made-by-start.py"
VERSION, SUITE = "%d.%d" % sys.version_info[:2], ["tests", "lessons", "faults", "notebooks"]
COMMANDS = {"test": ["test", "llm"], "llm": ["llm"], "run": [], "class": []}  # what each adds
Trouble = SystemExit  # raised with a text: Python prints it and ends with status 1
PIP = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
SLIDER = "application/vnd.jupyter.widget-view+json"  # the kind of output that a slider is
SOLUTION = "<details><summary>Solution</summary>"  # how a folded solution begins
SETTINGS = {  # no news, no warnings; sliders that survive a save; room for the names of files
    "etc/jupyter/labconfig/page_config.json":
        {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
    "jupyter/ipythondir/profile_default/ipython_kernel_config.json":
        {"IPKernelApp": {"log_level": 40}},
    "share/jupyter/lab/settings/overrides.json":
        {"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
         "@jupyterlab/filebrowser-extension:browser": {"showLastModifiedColumn": False}}}
LANGUAGE = {  # as the kernel says it: else JupyterLab adds it, and takes the file for changed
    "name": "python", "version": "%d.%d.%d" % sys.version_info[:3], "file_extension": ".py",
    "mimetype": "text/x-python", "codemirror_mode": {"name": "ipython", "version": 3},
    "pygments_lexer": "ipython3", "nbconvert_exporter": "python"}
HELP = """commands:
  (none)  Set up .venv, copy new notebooks into my_notebooks/, open JupyterLab. At first 2 to 10
          minutes and 2 GB of disk (more with an NVIDIA GPU), later seconds. Ctrl-C closes it.
  test    Set up and run all tests, the notebooks too: some minutes. What follows goes to pytest.
  run     Set up and execute every notebook without a browser, into build/run/: some minutes.
  llm     As without a command, and adds what the real language model needs: 400 MB of disk.
  class   Copy the notebooks into the folder that you name, without outputs and solutions (with
          --solutions they stay, folded). Nothing is set up, and no file is overwritten.

Your answers live in my_notebooks/ and are never overwritten. To start afresh, delete .venv."""
FAILURES = (  # what a log says, and what helps
    ("No space left|Errno 28|not enough space|quota exceeded",
     "The disk, or the one for temporary files, is full. Free about 3 GB, then start again."),
    ("WinError 206|enable-long-paths|[Ll]ong [Pp]ath", "The names of the files grow too long for "
     "Windows here. Move the course into a short folder, such as C:\\lora, then start again."),
    ("ensurepip|No module named venv", "This Python lacks venv. On Debian and Ubuntu: sudo apt "
     "install python3-venv (or python%s-venv), then start again." % VERSION),
    ("Retrying|Max retries|Timeout|SSLError|[Cc]onnection (broken|refused|reset)|name resolution",
     "A download failed. Check the internet connection (a proxy, a VPN?), then start again."),
    (r"No matching distribution found for torch\b", "PyTorch has no build for this computer: it "
     "needs a 64-bit Python and, on a Mac, an Apple chip."),
    ("", "That failed: the lines above say why. Start again when that is put right."),
)


def child_env():
    """What every child sees: the course's own Jupyter folders, never the reader's."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"}
    env["PYTHONPATH"] = str(ROOT)  # so that a .venv that was moved along needs no repair
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        env[name] = str(VENV / "jupyter" / name.lower())
    path = str(PYTHON.parent) + os.pathsep + env.get("PATH", os.defpath)
    return dict(env, PATH=path, PYTHONUTF8="1", PYTHONNOUSERSITE="1", JUPYTER_PREFER_ENV_PATH="1")


def child(command, out=None, dot=b""):
    """Run a command to its end, or to ours; return its status."""
    process = subprocess.Popen(command, cwd=ROOT, env=child_env(), stdout=out, stderr=out)
    try:
        while True:
            try:
                return process.wait(3)
            except subprocess.TimeoutExpired:
                os.write(1, dot)
    finally:
        process.terminate()
        process.wait()


def step(title, command, verbose=False):
    """Run a command into the log, with a dot every 3 s to show life; raise Trouble if it fails."""
    print(title)
    began = time.time()
    with open(LOG, "ab+") as log:
        start = log.tell()
        status = child(command) if verbose else child(command, log, b".")
        log.seek(start)
        output = log.read().decode("utf-8", "replace").strip()
    print(" took %d s" % (time.time() - began))
    if status:
        full = shutil.disk_usage(VENV).free < 50e6
        tip = next(tip for sign, tip in FAILURES if full or re.search(sign, output))
        raise Trouble("  %s\n%s\nThe log: %s" % ("\n  ".join(output.splitlines()[-5:]), tip, LOG))


def read_json(path):
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}  # missing or spoilt counts as empty


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")  # renamed when whole: no name stands for half a file
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    part.replace(path)


def plan(stamp, want):
    """What .venv needs to be what is wanted ("remake", "install" or ""), and why."""
    probe = [PYTHON, "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"]
    works = PYTHON.exists() and subprocess.run(probe, capture_output=True, env=child_env()).stdout
    if VENV.is_dir() and VERSION not in str(works) and not stamp and not OURS.exists():
        raise Trouble("There is a folder .venv that is not from here, and it has no Python %s that "
                      "works. Rename or delete it, then start again." % VERSION)
    differs = {key for key in want if stamp.get(key) != want[key]}
    return next((todo, why) for applies, todo, why in (
        (not VENV.is_dir(), "remake", "Hello! Setting up .venv: once, for 2 to 10 minutes."),
        (not stamp and OURS.exists(), "remake", "The last setup was cut short; starting over."),
        (VERSION not in str(works), "remake", ".venv has no Python %s that works." % VERSION),
        (not stamp, "install", "This .venv is not from here; adding what the course needs."),
        ("torch" in differs and want["torch"] != "auto", "remake", "Another PyTorch; a new .venv."),
        ("pyproject" in differs, "install", "pyproject.toml has changed."),
        (set(want["extras"]) - set(stamp.get("extras", ())), "install", "Adding what is needed."),
        (True, "", ""),
    ) if applies)


def install_torch(wanted, verbose):
    """A step of its own, as the small CPU build has an index of its own; return the build."""
    needs = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]
    torch = next(need for need in needs if re.match(r"torch(?![\w.-])", need))
    gpu = subprocess.getstatusoutput("nvidia-smi", errors="replace")[0] == 0
    why = "%s NVIDIA GPU here" % ("an" if gpu else "no")
    title = "Step 2 of 3: PyTorch, %s build (%s; for the other: --torch %s; 1 to 5 minutes)"
    if wanted == "cpu" or wanted == "auto" and not gpu and sys.platform != "darwin":
        try:
            index = ["-i", "https://download.pytorch.org/whl/cpu", "--retries=0", "--timeout=10"]
            step(title % ("cpu", why, "default"), PIP + [torch] + index, verbose)
            return "cpu"
        except Trouble as trouble:
            if wanted == "cpu" or "is full" in str(trouble):
                raise
            print("PyTorch's CPU index failed; now the default one, which may be larger.")
    step(title % ("default", why, "cpu"), PIP + [torch], verbose)
    return "default"


def machine():
    """Raise Trouble, before any download, where PyTorch has no build."""
    if sys.maxsize < 2**32:
        raise Trouble("This Python is a 32-bit one; PyTorch needs a 64-bit Python.")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise Trouble("This Python is made for Intel Macs, and PyTorch no longer is. On a Mac with "
                      "an Apple chip get the universal Python of https://www.python.org/downloads/"
                      "; an Intel Mac can't run the course.")


def setup(extras, torch, verbose):
    """Make .venv whole. The stamp is written last, so that what is cut short is done again."""
    if OLD.is_dir() and not VENV.is_dir():
        OLD.rename(VENV)  # the last start was ended at the worst moment
    began, stamp = time.time(), read_json(STAMP)
    if stamp:  # .venv is whole: what a killed start left behind it must not come back
        shutil.rmtree(OLD, ignore_errors=True)
    want = {"extras": extras, "torch": torch, "python": VERSION,
            "pyproject": hashlib.sha256(PROJECT.read_bytes()).hexdigest()}
    todo, why = plan(stamp, want)
    if todo:
        print(why)
    try:
        if todo == "remake":
            empty(stamp, verbose)
            stamp = {}
        if todo:
            want["extras"] = sorted(set(extras).union(stamp.get("extras", ())))
            want["torch"] = install_torch(stamp.get("torch", torch), verbose)
            course = PIP + ["-e", ".[%s]" % ",".join(want["extras"])]
            step("Step 3 of 3: JupyterLab and the course (1 to 3 minutes)", course, verbose)
            write_json(STAMP, want)
            print("Set up in %d s." % (time.time() - began))
    except BaseException:
        if OLD.is_dir():
            shutil.rmtree(VENV, ignore_errors=True)
            OLD.rename(VENV)
            print("The .venv from before is back in its place.")
        raise
    shutil.rmtree(OLD, ignore_errors=True)


def empty(stamp, verbose):
    """An empty .venv with the reader's settings. A whole one stands aside until this one is."""
    if stamp:
        VENV.rename(OLD)
    VENV.mkdir(exist_ok=True)
    OURS.touch()
    STAMP.unlink(missing_ok=True)
    for old in VENV.iterdir():
        if old.name not in (OURS.name, "jupyter"):  # that holds the reader's settings
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    if (OLD / "jupyter").is_dir():
        running = shutil.ignore_patterns("jupyter_runtime_dir")
        shutil.copytree(OLD / "jupyter", VENV / "jupyter", ignore=running, dirs_exist_ok=True)
    step("Step 1 of 3: .venv (10 seconds)", [sys._base_executable, "-m", "venv", VENV], verbose)


def bare(notebook, keep=None):
    """The notebook without outputs, which would give answers away; outputs of kind `keep` stay."""
    for cell in notebook["cells"]:
        shown = [data for output in cell.get("outputs", ()) for data in output.get("data", ())]
        if cell["cell_type"] == "code" and keep not in shown:
            cell.update(outputs=[], execution_count=None)
    notebook["metadata"]["language_info"] = LANGUAGE
    return notebook


def copy_for_class(folder, solutions):
    """Copy the notebooks for a class: without outputs, without solutions unless they are wanted."""
    count = 0
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if (folder / source.name).exists():
            print("%s is there already; it stays as it is." % (folder / source.name))
            continue
        notebook = bare(json.loads(source.read_text("utf-8")))
        notebook["metadata"].pop("widgets", None)
        if not solutions:
            notebook["cells"] = [cell for cell in notebook["cells"]
                                 if not "".join(cell["source"]).startswith(SOLUTION)]
        write_json(folder / source.name, notebook)
        count += 1
    print("%d notebooks copied into %s." % (count, folder))


def copy_notebooks():
    """Add to my_notebooks/ what it lacks, and touch nothing that is there."""
    record, fresh = read_json(MINE / ".copied.json"), {}
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        copy, digest = MINE / source.name, hashlib.sha256(source.read_bytes()).hexdigest()
        if copy.exists():
            if record.get(source.name, digest) != digest:
                print("There is a new edition of %s. To get it, rename or delete your copy in "
                      "my_notebooks/; your answers stay until then." % source.name)
            continue
        notebook = bare(json.loads(source.read_text("utf-8")), keep=SLIDER)
        write_json(copy.with_suffix(".new"), notebook)
        fresh[copy.with_suffix(".new")], record[source.name] = copy, digest
    if fresh:  # JupyterLab shows stored sliders only in notebooks that are trusted
        step("Copying new notebooks", [PYTHON, "-m", "nbformat.sign"] + list(fresh))
        write_json(MINE / ".copied.json", record)
    for new, copy in fresh.items():
        new.rename(copy)


def running():
    """The address of a JupyterLab of this course that answers, or None."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in (VENV / "jupyter" / "jupyter_runtime_dir").glob("jpserver-*.json"):
        server = read_json(path)
        try:
            address = "%slab?token=%s" % (server["url"], server["token"])
            plain.open(address.replace("lab?", "api/status?"), timeout=2).close()
            return address
        except (KeyError, OSError, ValueError):
            continue  # it has ended without tidying up


def course(browser):
    """Open JupyterLab; it prints the address itself, for whoever has no browser here."""
    address = running()  # of a first start that still runs
    if address:
        print("The course is open already, at\n  %s\nTwo at once would write into the same files. "
              "Go on there, or close it (Ctrl-C in its window) and start again." % address)
        return 0
    copy_notebooks()
    first = min(MINE.glob("*.ipynb"), key=lambda p: (p.stem != "00_welcome", p), default=ROOT)
    screen = sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    command = [PYTHON, "-m", "jupyterlab", "-y", "--allow-root", "--LabApp.log_level=ERROR",
               "--ServerApp.use_redirect_file=False",  # browsers from Snap cannot read in .venv
               "--ServerApp.log_level=ERROR",
               "--LabApp.default_url=/lab/tree/" + first.relative_to(ROOT).as_posix()]
    command += [] if browser and screen else ["--no-browser"]
    print("Opening JupyterLab. It takes some seconds; Ctrl-C here closes it again.")
    return child(command)


def run(verbose):
    """Execute notebook by notebook, going on after a failure; return 1 if there was one."""
    status, out = 0, ["--to", "notebook", "--execute", "--output-dir", ROOT / "build" / "run"]
    if "llm" not in read_json(STAMP)["extras"]:  # cells that need it are left out
        out.append("--ExecutePreprocessor.skip_cells_with_tag=needs-llm")
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        try:
            step(source.name, [PYTHON, "-m", "nbconvert", source] + out, verbose)
        except Trouble as error:
            status = 1
            print("  failed: " + re.sub("\x1b\\[[\\d;]*m", "", str(error).splitlines()[-3].strip()))
    return status


def read_arguments():
    looks = RawDescriptionHelpFormatter
    parser = ArgumentParser(description=__doc__, epilog=HELP, formatter_class=looks)
    parser.add_argument("command", nargs="?", choices=COMMANDS, help="see below")
    parser.add_argument("--torch", choices=["auto", "cpu", "default"], default="auto",
                        help="auto: the small CPU build, if no NVIDIA GPU is here")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--verbose", action="store_true", help="show what pip says")
    parser.add_argument("--solutions", action="store_true", help="with class: keep the solutions")
    options, rest = parser.parse_known_args()
    if options.command == "class" and (len(rest) != 1 or rest[0].startswith("-")):
        parser.error("class needs the name of one folder, as in: class my_notebooks")
    if rest and options.command not in ("test", "class"):
        parser.error("unknown: " + " ".join(rest))
    return options, rest


def main():
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being ended is like Ctrl-C
    options, rest = read_arguments()
    if options.command == "class":
        return copy_for_class(Path(rest[0]).expanduser(), options.solutions)
    machine()
    setup(["notebooks"] + COMMANDS.get(options.command, []), options.torch, options.verbose)
    for path, content in SETTINGS.items():  # an environment from before may lack some
        write_json(VENV / path, content)
    if options.command == "test":
        nbval = "--nbval" if sys.platform == "linux" else "--nbval-lax"
        print("Running the tests; %s: only on Linux are the notebooks' outputs compared." % nbval)
        return child([PYTHON, "-m", "pytest", nbval] + SUITE + rest)
    return run(options.verbose) if options.command == "run" else course(not options.no_browser)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit("%s\nThe course needs all its files, in a folder that you can write to, and "
                 "3 GB free. Put that right, copy it elsewhere or delete .venv; then start again."
                 % error)
    except KeyboardInterrupt:
        sys.exit("\nStopped. Your answers are in my_notebooks/; the next start does the rest.")
