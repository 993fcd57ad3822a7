"""A home-made driver as labs have them: blocking, and it knows nothing of duodaq. Hosted by this stanza::

[instruments.chopper]
runtime = "v2"
driver = "./own_chopper.py:Chopper"
port = "chopper"                    # or args = { port = … } if it opens its device itself
poll.rate = { call = "get_rate", unit = "Hz", every = "500 ms" }
"""


class Chopper:
    def __init__(self, port):
        self.port = port

    def get_rate(self):
        self.port.write(b"RATE?\n")
        return float(self.port.readline())

    def set_rate(self, hertz):
        self.port.write(b"RATE %g\n" % hertz)
