"""PyVISA backend: ``pyvisa.ResourceManager("@duodaq")`` opens the ports of a running lab, shared with everybody else.

``"NAME@duodaq"`` names a lab, where several are running. PyVISA finds the backend by this package's name.
"""

from pyvisa_duodaq._errors import SharedVisaIOError
from pyvisa_duodaq._library import WRAPPER_CLASS, DuodaqVisaLibrary

__all__ = ["WRAPPER_CLASS", "DuodaqVisaLibrary", "SharedVisaIOError"]
