"""The images on a real engine; `make image-test`.

`engine` finds or starts one, `bases` makes what the Dockerfile builds on where no registry answers,
`containers` runs what was built; the tests follow. `serving` are the servers inside.
"""
