"""Publishing adapters and stores on the Hugging Face Hub, and using what others published.

``hf-hub:org/name@revision`` stands wherever a recipe or a call takes a path (`genaug.hub.reference.local_path`).
Nothing here imports huggingface_hub before it is needed.
"""
