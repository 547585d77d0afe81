"""Packs CPython's own test modules, those that are run in the guest, for the tests of this repository.

usage: suite.py BUILT_PYTHON TAR EPOCH_S

They are sources, as they lie in the package: what they need of the standard library is in its zip file.
"""

import io
import os
import sys
import tarfile
from collections.abc import Iterator

# Of Lib/test: test modules, some are folders.
MODULES = """
    test_array test_asyncgen test_asyncio test_asyncore test_base64 test_binascii test_bz2 test_cmath test_codecs
    test_contextlib test_contextlib_async test_coroutines test_csv test_datetime test_decimal test_email test_fileio
    test_float test_functools test_genericpath test_glob test_gzip test_hashlib test_hmac test_http_cookiejar
    test_http_cookies test_httplib test_httpservers test_io test_ipaddress test_itertools test_json test_largefile
    test_logging test_lzma test_math test_os test_pathlib test_pickle test_poll test_posix test_posixpath test_pyexpat
    test_random test_re test_sched test_secrets test_select test_selectors test_shutil test_signal test_socket
    test_sqlite3 test_ssl test_strptime test_struct test_tarfile test_tempfile test_time test_tomllib test_unicodedata
    test_urllib test_urllib2 test_urllib2_localnet test_urllib_response test_urlparse test_uuid test_wsgiref
    test_xml_etree test_xml_etree_c test_zipfile test_zipimport test_zlib
"""

# Of Lib/test: what those import and read.
NEEDED = """
    __init__.py ann_module.py ann_module2.py capath cmath_testcases.txt data datetimetester.py decimaltestdata
    floating_points.txt formatfloat_testcases.txt ieee754.txt list_tests.py lock_tests.py mapping_tests.py
    math_testcases.txt mock_socket.py pickletester.py randv2_32.pck randv2_64.pck randv3.pck re_tests.py
    recursion.tar revocation.crl seq_tests.py ssl_servers.py string_tests.py support test_grammar.py testtar.tar
    testtar.tar.xz tokenize_tests-no-coding-cookie-and-utf8-bom-sig-only.txt tokenize_tests.txt typinganndata
    xmltestdata zip_cp437_header.zip zipdir.zip ziptestdata
"""

# Of Lib: what the zip file leaves out because there is a faster one in C.
DOUBLES = ("_pydecimal.py", "_pyio.py")


def files(library: str) -> Iterator[str]:
    """The files to pack, in order, relative to Lib."""
    yield from DOUBLES
    folder = os.path.join(library, "test")
    suites = {name if os.path.isdir(os.path.join(folder, name)) else f"{name}.py" for name in MODULES.split()}
    keys = {name for name in os.listdir(folder) if name.endswith(".pem")}
    for name in sorted(suites | keys | set(NEEDED.split())):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            yield os.path.relpath(path, library)
        for at, folders, names in os.walk(path):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            yield from (os.path.relpath(os.path.join(at, each), library) for each in sorted(names))


def pack(folder: str, to: str, epoch_s: int) -> None:
    library = os.path.join(folder, "Lib")
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in files(library):
            with open(os.path.join(library, path), "rb") as file:
                content = file.read()
            info = tarfile.TarInfo(path)
            info.size, info.mtime = len(content), epoch_s
            archive.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    pack(sys.argv[1], sys.argv[2], int(sys.argv[3]))
