"""The live deployment: front doors, job executors, task executors and the cluster manager. Every ray import is here."""
