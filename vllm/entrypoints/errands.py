"""What a server's engine does between steps when its front calls: stop stepping, write a trace, answer users' calls.

Does not know: sockets. Invariant: a call that fails is an answer with its reason and ends nothing.
Called by: engine_main.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm.engine.core import Engine
from vllm.engine.wire import Call, Done
from vllm.errors import RefusedError, VllmError

if TYPE_CHECKING:
    from vllm.entrypoints.profile import Profile
    from vllm.entrypoints.upkeep import Parts, Upkeep


class Errands:
    """For one engine. Without `parts` it takes no calls into its worker."""

    def __init__(self, parts: "Parts | None" = None, profiler_config: Mapping[str, Any] | None = None) -> None:
        self._parts, self._config = parts, profiler_config or {}
        self._upkeep: Upkeep | None = None
        self.is_paused = False
        self.profile: Profile | None = None
        """Told of every step."""

    def run(self, call: Call, engine: Engine) -> Done:
        """Do it, and what came of it."""
        try:
            return Done(call.number, self._do(call, engine))
        except Exception as error:  # why: a user's function may raise what it likes
            text = str(error) if isinstance(error, VllmError) else f"{type(error).__name__}: {error}"
            return Done(call.number, error=text[:2000])

    def _do(self, call: Call, engine: Engine) -> Any:
        if call.method in ("pause", "resume"):
            self.is_paused = call.method == "pause"
            return None
        if call.method == "reset_prefix_cache":
            if call.args and call.args[0]:
                engine.vacate()
            engine.reset_prefix_cache()
            return None
        if call.method == "start_profile":
            return self._start_profile(*call.args)
        if call.method == "stop_profile":
            return self._stop_profile()
        return self._rpc(call)

    def _start_profile(self, prefix: str | None = None) -> None:
        from vllm.entrypoints.profile import Profile

        if self.profile is not None:
            raise RefusedError("start_profile: a profile is being taken; stop_profile ends it.")
        self.profile = Profile(self._config, prefix)

    def _stop_profile(self) -> str | None:
        if self.profile is None:
            raise RefusedError("stop_profile: none is being taken; start_profile begins one.")
        profile, self.profile = self.profile, None
        file = profile.stop()
        return None if file is None else str(file)

    def _rpc(self, call: Call) -> list[Any]:
        from vllm.entrypoints.upkeep import Upkeep

        if self._parts is None:
            raise RefusedError("this engine takes no calls into its worker.")
        if call.method in ("sleep", "wake_up"):
            raise RefusedError(f"collective_rpc: {call.method} is the server's own: POST /{call.method}.")
        if self._upkeep is None:
            self._upkeep = Upkeep(self._parts)
        answers = self._upkeep.rpc(call.method, call.args, call.words)
        self._upkeep.make_ready()  # why: weights that were given take the place of the old ones before the next step
        found: list[Any] = json.loads(json.dumps(answers, default=str))
        return found
