"""A real Kubernetes of several nodes on one Linux machine, for the end-to-end tests.

No Docker and no downloaded binaries: Kubernetes, etcd, CoreDNS and Helm are compiled from their Go modules, and each
node is a network and a mount namespace with its own containerd, kubelet and kube-proxy. `python -m cluster up` starts
it and `python -m cluster down` removes every trace of it.
"""
