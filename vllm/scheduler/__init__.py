"""Which sequence gets how many tokens in the next step.

For: ordering the waiting, reserving resources, preempting; the answer is a StepPlan. Does not know: phases,
features, tensors. Invariants: a step gives each sequence n query tokens; the budget is never passed.
Called by: engine.
"""
