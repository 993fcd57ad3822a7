from __future__ import annotations

_EXTRAS = {
    "ophyd": "ophyd",
    "ophyd_async": "ophyd",
    "opentelemetry": "otel",
    "prometheus_client": "web",
    "pyvisa": "visa",
    "pyvisa_py": "visa",
    "qcodes": "qcodes",
    "serial": "serial",
    "fastapi": "web",
    "starlette": "web",
    "uvicorn": "web",
    "websockets": "web",
}
_NAMES = {"thorlabs_elliptec": "thorlabs-elliptec", "yaml": "pyyaml"}


def install_command(package: str) -> str:
    """What installs the library that is imported as `package`: duodaq's own extra for it, where there is one."""
    name = package.partition(".")[0]
    if name in _EXTRAS:
        return f"pip install 'duodaq[{_EXTRAS[name]}]'"
    return f"pip install {_NAMES.get(name, name)}"
