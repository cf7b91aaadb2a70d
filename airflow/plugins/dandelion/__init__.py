"""Dandelion's functions as steps of a DAG: submit an event, wait for its run, hand its result on."""
