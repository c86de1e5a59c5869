"""What `cwrgp-check-data` shows of a data set, without torch and Detectron2."""
