"""What the user said about the socket: where to listen, who may come in.

Does not know: routes, engines. Callers: config/server.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle
from vllm.errors import ValidationError


@dataclass(frozen=True, kw_only=True)
class ListenArgs:
    """The listening section."""

    host: str = knob("127.0.0.1", "str", "address to listen on; 0.0.0.0 opens the server to the network")
    port: int = knob(8000, "int", "port to listen on; 0 takes a free one", high=65535)
    uds: str | None = knob(None, "str", "a Unix socket to listen on, in place of host and port")
    api_key: tuple[str, ...] | None = knob(None, "strings", "keys that clients must send", repr=False)
    api_key_file: str | None = knob(None, "str", "a file with one key per line, beside those of --api-key")
    allowed_origins: tuple[str, ...] | None = knob(None, "strings", "web origins that may call (CORS); none by default")
    allowed_methods: tuple[str, ...] = knob(("*",), "strings", "methods that web pages may use (CORS)")
    allowed_headers: tuple[str, ...] = knob(("*",), "strings", "headers that web pages may send (CORS)")
    ssl_keyfile: str | None = knob(None, "str", "TLS key file")
    ssl_certfile: str | None = knob(None, "str", "TLS certificate file")
    ssl_ca_certs: str | None = knob(None, "str", "certificates that sign those of clients")
    ssl_cert_reqs: int = knob(0, "int", "whether clients need a certificate: 0 no, 1 optional, 2 yes", high=2)
    ssl_ciphers: str | None = knob(None, "str", "TLS ciphers, in OpenSSL's words; default Python's own choice")
    enable_ssl_refresh: bool = knob(False, "bool", "read the TLS files again when they change")
    root_path: str = knob("", "str", "path prefix that a proxy in front takes off")

    def __post_init__(self) -> None:
        settle(self)
        if any(not key for key in self.api_key or ()):
            raise ValidationError("api_key must not be empty.", field="api_key")
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise ValidationError("ssl_keyfile and ssl_certfile are needed together.", field="ssl_certfile")
        needs_tls = self.ssl_ca_certs or self.ssl_cert_reqs or self.ssl_ciphers or self.enable_ssl_refresh
        if needs_tls and self.ssl_certfile is None:
            raise ValidationError("the ssl flags need ssl_certfile and ssl_keyfile.", field="ssl_certfile")
        if self.ssl_cert_reqs and self.ssl_ca_certs is None:
            raise ValidationError("ssl_cert_reqs needs ssl_ca_certs.", field="ssl_cert_reqs", value=self.ssl_cert_reqs)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that lets a client in. Raises ValidationError for a file that cannot be read or is empty."""
        keys = list(self.api_key or ())
        if self.api_key_file is not None:
            try:
                with open(self.api_key_file, encoding="utf-8") as file:
                    found = [line.strip() for line in file if line.strip()]
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                raise ValidationError(f"api_key_file {self.api_key_file}: {reason}.", field="api_key_file") from None
            if not found:
                raise ValidationError(f"api_key_file {self.api_key_file} holds no key.", field="api_key_file")
            keys += found
        return tuple(keys)
