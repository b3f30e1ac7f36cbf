"""One machine, no Kubernetes: an embedded control plane for laptops, demos and fault injection.

`apiserver` is a small API server, `node` runs pods as processes, `proxy` makes Services reachable and `up` holds
them together. The operator runs against it unchanged, over HTTP. It makes no claim about network isolation, DNS,
OOM, eviction, RBAC or CEL rules: what is claimed of Kubernetes is tested on `make cluster`.
"""
