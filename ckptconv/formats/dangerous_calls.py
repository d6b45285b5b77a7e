"""Which names in a pickle run programs, open files or execute code when they are called.

Real files call classes of training code and of libraries, too, but these only make objects.
"""

from __future__ import annotations

_MODULES = frozenset((
    "os", "posix", "nt", "subprocess", "commands", "popen2", "sys", "importlib", "imp", "runpy", "pkgutil", "code",
    "codeop", "pdb", "bdb", "profile", "cProfile", "timeit", "pty", "socket", "ssl", "http", "urllib", "urllib2",
    "httplib", "ftplib", "smtplib", "telnetlib", "xmlrpc", "requests", "aiohttp", "asyncio", "webbrowser", "shutil",
    "tempfile", "ctypes", "_ctypes", "cffi", "multiprocessing", "threading", "signal", "marshal", "pickle",
    "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "pip", "ensurepip", "setuptools", "distutils",
    "venv", "site", "builtins", "__builtin__", "__builtins__", "inspect", "gc", "types", "operator", "_operator",
    "linecache", "trace", "doctest",
))  # fmt: skip
_HARMLESS = frozenset((
    "set", "frozenset", "list", "dict", "tuple", "str", "bytes", "bytearray", "int", "float", "bool", "complex",
    "slice", "range", "object", "type", "getattr", "unicode", "long", "xrange", "print", "NotImplementedType",
    "EllipsisType", "SimpleNamespace", "mappingproxy", "itemgetter", "attrgetter", "PosixPath", "WindowsPath",
))  # fmt: skip
"""What real files call of these modules: `getattr` returns an enum's member or a class inside a class."""
_NAMES = frozenset((
    "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.hub.download_url_to_file", "torch.load",
    "torch.utils.cpp_extension.load", "torch.utils.cpp_extension.load_inline", "numpy.load", "numpy.f2py.compile",
    "numpy.testing._private.utils.runstring",
))  # fmt: skip


def is_dangerous(name: str) -> bool:
    """Whether a call of this name would run, open or unpickle something."""
    module, _, function = name.rpartition(".")
    return name in _NAMES or (module.partition(".")[0] in _MODULES and function not in _HARMLESS)
