"""A logits processor for every request, named on the command line of a server."""

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor


class Only(AdapterLogitsProcessor):
    """Leaves one token, where a request's extra_args ask for it."""

    @classmethod
    def validate_params(cls, sampling_params):
        if not isinstance((sampling_params.extra_args or {}).get("only", 0), int):
            raise ValueError("only must be a token id")

    def is_argmax_invariant(self):
        return False

    def new_req_logits_processor(self, params):
        only = (params.extra_args or {}).get("only")
        if only is None:
            return None

        def keep(output_ids, logits):
            kept = logits[only].item()
            logits[:] = float("-inf")
            logits[only] = kept
            return logits

        return keep
